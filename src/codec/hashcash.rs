//! Hashcash stamps: `1:BITS:DATE:RESOURCE:EXT:RAND:COUNTER`, with a SHA-1 that begins with at least
//! BITS zero bits. Date, extension, random part and counter are not checked.

use sha1::{Digest, Sha1};

use crate::message::{Demand, StampError};

const FIELDS: usize = 7;

/// The only version of the format.
const VERSION: &str = "1";

/// Whether a stamp is the proof of work that was demanded.
pub fn verify(stamp: &str, demand: &Demand) -> Result<(), StampError> {
    let fields: Vec<&str> = stamp.splitn(FIELDS + 1, ':').collect();
    let [version, bits, _date, resource, _ext, _rand, _counter] = fields[..] else {
        return Err(StampError::Fields);
    };
    if version != VERSION {
        return Err(StampError::Version);
    }
    let claimed = super::digits(bits).ok_or(StampError::Bits)?;
    if claimed < demand.bits {
        return Err(StampError::TooFewBits { claimed, demanded: demand.bits });
    }
    if resource != demand.resource() {
        return Err(StampError::Resource);
    }
    let found = proven_bits(stamp);
    if found < claimed {
        return Err(StampError::Unproven { claimed, found });
    }
    Ok(())
}

/// The zero bits with which the stamp's hash begins.
pub fn proven_bits(stamp: &str) -> u32 {
    leading_zero_bits(&Sha1::digest(stamp))
}

fn leading_zero_bits(bytes: &[u8]) -> u32 {
    let zero_bytes = bytes.iter().take_while(|byte| **byte == 0).count();
    let rest = bytes.get(zero_bytes).map_or(0, |byte| byte.leading_zeros());
    zero_bytes as u32 * u8::BITS + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::ProofState;

    const DEMAND: Demand = Demand {
        bits: 10,
        resource: 0x0123_4567_89ab_cdef,
        is_required: true,
        proof: ProofState::Missing,
    };
    const RESOURCE: &str = "0123456789abcdef";

    /// A stamp that claims `bits` and has a number of zero bits for which `proven` is true.
    fn stamp(bits: &str, resource: &str, proven: impl Fn(u32) -> bool) -> String {
        let mut stamps = (0..).map(|counter| format!("1:{bits}:261124:{resource}::r:{counter}"));
        stamps.find(|stamp| proven(proven_bits(stamp))).expect("there are enough numbers")
    }

    #[test]
    fn leading_zero_bits_are_counted_over_bytes() {
        for (bytes, bits) in
            [(&[0x80, 0][..], 0), (&[0x01, 0xff], 7), (&[0, 0x10], 11), (&[0, 0], 16), (&[], 0)]
        {
            assert_eq!(leading_zero_bits(bytes), bits, "{bytes:?}");
        }
    }

    #[test]
    fn a_known_stamp_has_its_twenty_bits() {
        // The example of the hashcash program's own documentation.
        let stamp = "1:20:1303030600:adam@cypherspace.org::McMybZIhxKXu57jd:ckvi";
        assert!(proven_bits(stamp) >= 20);
    }

    #[test]
    fn a_stamp_of_enough_bits_for_the_resource_is_good() {
        for bits in ["10", "11", "0010"] {
            let claimed = bits.parse().expect("a number");
            assert_eq!(verify(&stamp(bits, RESOURCE, |found| found >= claimed), &DEMAND), Ok(()));
        }
    }

    #[test]
    fn each_rule_has_its_error() {
        let proven = |found| found >= 10;
        let good = stamp("10", RESOURCE, proven);
        let changed = |from: &str, to: &str| good.replacen(from, to, 1);
        for (stamp, error) in [
            (String::new(), StampError::Fields),
            (good.clone() + ":", StampError::Fields),
            (good.replace("::", ":"), StampError::Fields),
            (changed("1:", "0:"), StampError::Version),
            (changed("1:", " 1:"), StampError::Version),
            (changed("1:10:", "1:ten:"), StampError::Bits),
            (changed("1:10:", "1:+10:"), StampError::Bits),
            (changed("1:10:", "1::"), StampError::Bits),
            (changed("1:10:", "1:99999999999:"), StampError::Bits),
            (changed("1:10:", "1:9:"), StampError::TooFewBits { claimed: 9, demanded: 10 }),
            (stamp("10", "0123456789ABCDEF", proven), StampError::Resource),
            (stamp("10", "", proven), StampError::Resource),
            (
                stamp("12", RESOURCE, |found| found == 10),
                StampError::Unproven { claimed: 12, found: 10 },
            ),
            (
                stamp("10", RESOURCE, |found| found == 9),
                StampError::Unproven { claimed: 10, found: 9 },
            ),
        ] {
            assert_eq!(verify(&stamp, &DEMAND), Err(error), "{stamp}");
        }
    }
}
