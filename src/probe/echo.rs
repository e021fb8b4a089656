//! The answering end of an echo: whoever is outside learns how long the guest's network was away.
//!
//! Contract: each byte goes back as soon as it is read, in order. No disk is touched and no state is
//! kept, so that nothing but the network and the CPUs can delay an answer.

use std::io::{self, Read, Write};

/// Bytes in a number: whoever asks counts answers by it.
pub const NUMBER: usize = 8;

/// Writes everything that is read back at once, until the stream ends.
pub fn echo(mut from: impl Read, mut to: impl Write) -> io::Result<()> {
    let mut buffer = [0; 64 * NUMBER];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => {
                to.write_all(&buffer[..read])?;
                to.flush()?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_goes_back() {
        let numbers: Vec<u8> = (0..500_u64).flat_map(u64::to_le_bytes).collect();
        let mut back = Vec::new();
        echo(&numbers[..], &mut back).unwrap();
        assert_eq!(back, numbers);
    }
}
