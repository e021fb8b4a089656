//! Memory that `O_DIRECT` accepts: whole cells at a cell boundary, without unsafe code.

use super::layout::CELL;

/// A buffer of whole cells whose address is a multiple of [`CELL`].
#[derive(Debug)]
pub struct Aligned {
    /// One cell longer than asked for, so that an aligned stretch fits; never resized, so that the
    /// stretch stays where it is.
    raw: Box<[u8]>,
    start: usize,
    len: usize,
}

impl Aligned {
    /// A zeroed buffer of `cells` cells.
    pub fn new(cells: usize) -> Self {
        let len = cells * CELL;
        let raw = vec![0; len + CELL].into_boxed_slice();
        let start = (CELL - raw.as_ptr().addr() % CELL) % CELL;
        Self { raw, start, len }
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.raw[self.start..self.start + self.len]
    }

    /// The bytes, to change.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.raw[self.start..self.start + self.len]
    }

    /// Cell `index`, to change.
    pub fn cell_mut(&mut self, index: usize) -> &mut [u8; CELL] {
        &mut self.bytes_mut().as_chunks_mut::<CELL>().0[index]
    }
}

/// Whether `O_DIRECT` takes these bytes as they are.
pub fn is_aligned(bytes: &[u8]) -> bool {
    bytes.as_ptr().addr().is_multiple_of(CELL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_aligned_and_as_long_as_asked() {
        for cells in [1, 2, 7, 256] {
            let mut buffer = Aligned::new(cells);
            assert!(is_aligned(buffer.bytes()));
            assert_eq!(buffer.bytes().len(), cells * CELL);
            buffer.cell_mut(cells - 1).fill(7);
            assert!(
                buffer.bytes()[(cells - 1) * CELL..]
                    .iter()
                    .all(|&byte| byte == 7)
            );
            assert!(!is_aligned(&buffer.bytes()[1..]));
        }
    }
}
