"""Back up an app's database, queue and files with restic, and restore them.

A backup is a set of restic snapshots with the same tag `run=…`: database, queue, files and, last, a
manifest. Only a set with a manifest counts. Snapshots of binary logs have the tag `binlog`; each
contains all logs that the server keeps. A database is restored in a private server without network:
it loads the dump, applies the binary logs as a replica does, and stops before the first transaction
of the given moment. The result is checked before it is copied to the real server.
"""
