//! Ranges of users and groups.

use bosun_proto::v1::IdMapping;

use super::FlagError;

/// `CONTAINER:HOST[:SIZE]`, as podman's; a range of one without its size.
pub(crate) fn id_mapping(text: &str) -> Result<IdMapping, FlagError> {
    let numbers: Option<Vec<u32>> = text.split(':').map(number).collect();
    match numbers.as_deref() {
        Some(&[container_id, host_id]) => Ok(IdMapping { container_id, host_id, size: 1 }),
        Some(&[container_id, host_id, size]) => Ok(IdMapping { container_id, host_id, size }),
        Some(_) | None => Err(FlagError::IdMapping(text.to_owned())),
    }
}

fn number(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_ids() {
        let mapping = |container_id, host_id, size| Ok(IdMapping { container_id, host_id, size });
        assert_eq!(id_mapping("0:100000:65536"), mapping(0, 100_000, 65_536));
        assert_eq!(id_mapping("1000:1000"), mapping(1000, 1000, 1));
        for text in ["", "0", "0:1:2:3", "a:1:1", "0:-1:1", "0:+1:1", "0:4294967296:1", "0::1"] {
            assert_eq!(id_mapping(text), Err(FlagError::IdMapping(text.to_owned())), "{text}");
        }
    }
}
