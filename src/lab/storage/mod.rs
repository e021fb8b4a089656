//! Storage controllers: PV and PVC binding, CDI DataVolumes, csi-addons replication and fencing.
