"""The negative bank: embedded frames, and the hardest valid negatives among them.

ring.py keeps the frames; indexes.py says what an index has to do, which is to propose candidates,
faiss_index.py has FAISS do it, and searches.py lists the kinds there are; hardest.py excludes and
decides; files.py saves. bank.py is all of it as one object, sharded.py one bank over many processes
that talk through exchange.py.
"""

from usucl.bank.bank import NegativeBank
from usucl.bank.sharded import ShardedBank

__all__ = ["NegativeBank", "ShardedBank"]
