"""Worker processes (`--isolate N`): engines that may crash without the server, or a request, lost.

The server's engine threads hand each batch to a process over shared memory. A process that dies is
started again, and what it was computing is given to another. `memory` is what both sides share,
`channel` how they take turns, `remote` one process seen from the server, `pool` all of them as one
session, `copies` the files that they read,
`opening` makes a pool of a bundle, and `__main__` is what a process does.
"""
