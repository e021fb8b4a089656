//! Simulated guests: an SSH server in this process over the array's volumes; runs no host command.
