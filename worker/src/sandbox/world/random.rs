//! Randomness that every machine agrees on.
//!
//! The stream of a task is the extendable output of BLAKE3 in derive-key mode: context
//! `talka-1 random`, key material the job's seed and then the task's index, each as 8 bytes, little
//! endian. The program draws from it front to back. It is as good as any generator for sampling, and
//! public: nothing secret may rest on it.

/// The random stream of one task.
#[derive(Debug)]
pub(crate) struct Random {
    seed: u64,
    index: u64,
    /// Set up at the first draw: most programs never draw.
    stream: Option<blake3::OutputReader>,
}

impl Random {
    /// The stream of the task `index` of a job with that `seed`.
    pub(crate) fn new(seed: u64, index: u64) -> Self {
        Self { seed, index, stream: None }
    }

    /// The next `buffer.len()` bytes.
    pub(crate) fn fill(&mut self, buffer: &mut [u8]) {
        let (seed, index) = (self.seed, self.index);
        let stream = self.stream.get_or_insert_with(|| {
            let mut hasher = blake3::Hasher::new_derive_key("talka-1 random");
            hasher.update(&seed.to_le_bytes()).update(&index.to_le_bytes());
            hasher.finalize_xof()
        });
        stream.fill(buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(seed: u64, index: u64, sizes: &[usize]) -> Vec<u8> {
        let mut random = Random::new(seed, index);
        let mut all = Vec::new();
        for size in sizes {
            let mut part = vec![0; *size];
            random.fill(&mut part);
            all.extend(part);
        }
        all
    }

    #[test]
    fn the_stream_does_not_depend_on_how_it_is_drawn() {
        assert_eq!(draw(7, 3, &[100]), draw(7, 3, &[1, 0, 63, 1, 35]));
    }

    #[test]
    fn each_task_has_its_own_stream() {
        let streams = [(7, 3), (7, 4), (8, 3), (3, 7)].map(|(seed, index)| draw(seed, index, &[32]));
        for (i, one) in streams.iter().enumerate() {
            assert!(streams[i + 1..].iter().all(|other| other != one));
        }
    }

    #[test]
    fn the_stream_is_the_documented_one() {
        let mut expected = [0; 40];
        let mut hasher = blake3::Hasher::new_derive_key("talka-1 random");
        hasher.update(&[1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]).finalize_xof().fill(&mut expected);
        assert_eq!(draw(1, 2, &[40]), expected);
    }
}
