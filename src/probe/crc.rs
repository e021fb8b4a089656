//! CRC-32C (Castagnoli), the checksum of cells, frames and history segments.
//!
//! Contract: the parameters of RFC 3720 §12.1 (polynomial 0x1EDC6F41 reflected, initial and final
//! value all ones). The processor's own instruction is used where there is one, else tables, eight bytes
//! per step.

const POLYNOMIAL: u32 = 0x82F6_3B78;

/// `TABLES[k][b]` is the effect of byte `b` followed by `k` zero bytes.
static TABLES: [[u32; 256]; 8] = tables();

const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0u32; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        #[expect(clippy::cast_possible_truncation, reason = "byte < 256")]
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 {
                crc >> 1 ^ POLYNOMIAL
            } else {
                crc >> 1
            };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut k = 1;
    while k < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[k - 1][byte];
            tables[k][byte] = before >> 8 ^ tables[0][(before & 0xFF) as usize];
            byte += 1;
        }
        k += 1;
    }
    tables
}

/// The CRC-32C of `bytes`.
pub fn crc32c(bytes: &[u8]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("sse4.2") {
        #[expect(
            unsafe_code,
            reason = "the processor was just asked whether it can do this"
        )]
        // SAFETY: the one requirement of `by_instruction` is SSE 4.2.
        return !unsafe { by_instruction(!0, bytes) };
    }
    !by_table(!0, bytes)
}

/// The `crc32` instruction of SSE 4.2, which is CRC-32C without the inversions.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse4.2")]
fn by_instruction(state: u32, bytes: &[u8]) -> u32 {
    use std::arch::x86_64::{_mm_crc32_u8, _mm_crc32_u64};
    let (words, rest) = bytes.as_chunks::<8>();
    let wide = words.iter().fold(u64::from(state), |state, word| {
        _mm_crc32_u64(state, u64::from_le_bytes(*word))
    });
    // The instruction leaves the upper half zero.
    let state = super::cell::low32(wide);
    rest.iter()
        .fold(state, |state, &byte| _mm_crc32_u8(state, byte))
}

fn by_table(mut state: u32, bytes: &[u8]) -> u32 {
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        let x = u64::from_le_bytes(*word) ^ u64::from(state);
        let b = x.to_le_bytes();
        state = TABLES[7][usize::from(b[0])]
            ^ TABLES[6][usize::from(b[1])]
            ^ TABLES[5][usize::from(b[2])]
            ^ TABLES[4][usize::from(b[3])]
            ^ TABLES[3][usize::from(b[4])]
            ^ TABLES[2][usize::from(b[5])]
            ^ TABLES[1][usize::from(b[6])]
            ^ TABLES[0][usize::from(b[7])];
    }
    for &byte in rest {
        let [low, ..] = state.to_le_bytes();
        state = state >> 8 ^ TABLES[0][usize::from(low ^ byte)];
    }
    state
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The check value of the CRC catalogue and the examples of RFC 3720 appendix B.4.
    #[test]
    fn known_answers_both_ways() {
        let ascending: Vec<u8> = (0..32).collect();
        let descending: Vec<u8> = (0..32).rev().collect();
        let known: [(&[u8], u32); 6] = [
            (b"", 0),
            (b"123456789", 0xE306_9283),
            (&[0; 32], 0x8A91_36AA),
            (&[0xFF; 32], 0x62A8_AB43),
            (&ascending, 0x46DD_794E),
            (&descending, 0x113F_DB5C),
        ];
        for (bytes, crc) in known {
            assert_eq!(crc32c(bytes), crc, "{bytes:?}");
            assert_eq!(!by_table(!0, bytes), crc, "{bytes:?}");
        }
    }
}
