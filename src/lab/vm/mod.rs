//! KubeVirt: VM and VMI controllers, launcher pods, webhooks, the subresource API.
