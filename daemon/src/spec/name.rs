//! Names for containers that were given none.

/// Words that go with each other in any pair.
const FIRST: [&str; 32] = [
    "amber", "brisk", "calm", "clear", "cosy", "deep", "early", "fair", "fleet", "fresh", "gentle",
    "golden", "hardy", "hazel", "jolly", "keen", "lively", "lucid", "mellow", "misty", "neat",
    "nimble", "noble", "quiet", "rapid", "silver", "steady", "sunny", "tidy", "vivid", "warm",
    "young",
];

const SECOND: [&str; 32] = [
    "anchor", "beacon", "birch", "bosun", "breeze", "brook", "buoy", "canoe", "cedar", "cove",
    "delta", "dory", "ferry", "fjord", "gull", "harbour", "heron", "island", "jetty", "kayak",
    "lagoon", "mast", "oar", "otter", "pier", "reef", "rudder", "sail", "shore", "tide", "tug",
    "wharf",
];

/// Two words and four digits, always the same for an id: `keen_otter_3f2a`. The whole
/// id decides; with some hundred containers a pair of the same name is rare, and then refused.
#[must_use]
pub fn generated_name(id: &str) -> String {
    // FNV-1a, which the standard library's own hasher does not promise to be tomorrow.
    let hash = id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let word = |words: [&'static str; 32], shift: u32| words[(hash >> shift & 31) as usize];
    format!("{}_{}_{:04x}", word(FIRST, 40), word(SECOND, 48), hash & 0xffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_the_same_for_an_id_and_another_for_another() {
        let names: std::collections::BTreeSet<String> =
            (0..1000).map(|number| generated_name(&format!("{number:064x}"))).collect();
        assert!(names.len() > 990, "{}", names.len());
        assert_eq!(generated_name("abc"), generated_name("abc"));
        for name in names {
            assert!(name.parse::<shim_wire::id::Id>().is_ok(), "{name} is an id as well");
        }
    }
}
