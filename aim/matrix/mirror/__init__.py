"""The mirror: the observed state of managed rooms, kept by the homeserver's transactions.

    mirror ─► sift, judge            a transaction: what concerns us, what of it is believed
       ├────► reading, people        what has to be read: rooms, keys in doubt, accounts
       ├────► around                 what is in our spaces without being ours
       ├────► stream                 the control room, ping, barrier
       └────► keeper ─► memory ─► apply ─► events

Between the homeserver and the world. In: transactions, through `Mirror.take`, and answers to requests. Out:
Observed. It is stored through ports.MirrorStore; what is in memory is what was recorded.
"""

from aim.matrix.mirror.mirror import Hooks, Mirror
from aim.matrix.mirror.stored import StoredMirror

__all__ = ["Hooks", "Mirror", "StoredMirror"]
