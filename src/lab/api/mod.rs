//! The API server: store, protocol, discovery, validation. Knows no domain controller.
