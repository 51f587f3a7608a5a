"""The negative bank: embedded frames, and the hardest valid negatives among them.

ring.py keeps the frames, indexes.py lets FAISS propose candidates, generations.py builds indexes
beside those in use, hardest.py excludes and decides, files.py saves; bank.py is all of it as one
object, sharded.py one bank over many processes that talk through exchange.py.
"""

from usucl.bank.bank import NegativeBank
from usucl.bank.sharded import ShardedBank

__all__ = ["NegativeBank", "ShardedBank"]
