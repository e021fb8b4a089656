//! The storage array: images per site with an ordered write log, a volatile cache, mirror snapshots and replication.
