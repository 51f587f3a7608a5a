"""The negative bank: embedded frames, and the hardest valid negatives among them.

ring.py keeps the frames. indexes.py defines an index, which proposes candidates; faiss_index.py
does so with FAISS, and searches.py lists the kinds of search. hardest.py excludes and decides;
files.py saves. bank.py combines them in one object; sharded.py joins the banks of many
processes, round_robin.py deals one bank out to them; they communicate through exchange.py.
"""

from usucl.bank.bank import NegativeBank
from usucl.bank.sharded import ShardedBank

__all__ = ["NegativeBank", "ShardedBank"]
