//! CRC-32 (IEEE) run backwards. From a checksum and the bytes before it follows the state in which those bytes were begun;
//! where that is the state of the beginning, the checksum is right for all that was passed.

/// The state before the first byte.
pub(super) const BEGINNING: u32 = u32::MAX;

const POLYNOMIAL: u32 = 0xEDB8_8320;

/// What a byte adds to the state.
const FORWARD: [u32; 256] = {
    let mut table = [0; 256];
    let mut index = 0_u32;
    while index < 256 {
        let mut value = index;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 1 { (value >> 1) ^ POLYNOMIAL } else { value >> 1 };
            bit += 1;
        }
        table[index as usize] = value;
        index += 1;
    }
    table
};

/// Which entry of [`FORWARD`] has this first byte: each has another one.
const BACKWARD: [u8; 256] = {
    let mut table = [0; 256];
    let mut index = 0_u8;
    loop {
        table[(FORWARD[index as usize] >> 24) as usize] = index;
        if index == 255 {
            break;
        }
        index += 1;
    }
    table
};

/// The state after which a checksum is this.
pub(super) fn end(checksum: [u8; 4]) -> u32 {
    !u32::from_be_bytes(checksum)
}

/// The state before a byte, from the one after it.
pub(super) fn before(state: u32, byte: u8) -> u32 {
    let index = BACKWARD[(state >> 24) as usize];
    ((state ^ FORWARD[index as usize]) << 8) | u32::from(index ^ byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn backwards_leads_to_the_beginning(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let sum = crc32fast::hash(&bytes).to_be_bytes();
            let state = bytes.iter().rev().fold(end(sum), |state, byte| before(state, *byte));
            prop_assert_eq!(state, BEGINNING);
        }
    }
}
