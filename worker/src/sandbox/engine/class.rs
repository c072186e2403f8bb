//! What machine code depends on, besides the module that it was made of.

use std::hash::{Hash, Hasher};

use talka_profile::{PASS_VERSION, PROFILE};
use wasmtime::Engine;

use super::{EngineError, config};

/// Names everything that decides which machine code a module becomes, and whether this program may load
/// it: the engine's version and settings, the processor's kind and abilities as the engine sees them, the counting
/// pass, the profile and this program's own version.
///
/// Of use on one machine only: another build of the same program may name the same class differently,
/// which costs it a compilation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in super::super) struct EngineClass([u8; 32]);

impl EngineClass {
    #[cfg(test)]
    pub(in super::super) const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The class of what [`compile`](super::compile) makes in a process of this program, on this machine.
    /// Takes about a millisecond: an engine is set up for it.
    pub(in super::super) fn of_this_machine() -> Result<Self, EngineError> {
        let engine = Engine::new(&config()).map_err(|error| EngineError::SetUp(format!("{error:#}")))?;
        let mut hasher = Blake3Hasher(blake3::Hasher::new_derive_key("talka engine class"));
        engine.precompile_compatibility_hash().hash(&mut hasher);
        (PASS_VERSION, PROFILE, env!("CARGO_PKG_VERSION")).hash(&mut hasher);
        Ok(Self(*hasher.0.finalize().as_bytes()))
    }

    /// The raw bytes.
    pub(in super::super) const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Makes all 32 bytes out of what [`Hash`] feeds; the standard library's own hashers keep 8, and differ
/// between versions.
struct Blake3Hasher(blake3::Hasher);

impl Hasher for Blake3Hasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let hash = self.0.finalize();
        hash.as_bytes().first_chunk().map_or(0, |first| u64::from_le_bytes(*first))
    }
}

#[cfg(test)]
mod tests {
    use wasmtime::{Config, OptLevel};

    use super::*;

    fn hash_of(configure: impl FnOnce(&mut Config)) -> blake3::Hash {
        let mut config = config();
        configure(&mut config);
        let engine = Engine::new(&config).expect("an engine");
        let mut hasher = Blake3Hasher(blake3::Hasher::new());
        engine.precompile_compatibility_hash().hash(&mut hasher);
        hasher.0.finalize()
    }

    #[test]
    fn a_machine_has_one_class_as_long_as_nothing_changes() {
        let class = || EngineClass::of_this_machine().expect("an engine");
        assert_eq!(class(), class());
        assert_eq!(hash_of(|_| ()), hash_of(|_| ()));
    }

    #[test]
    fn another_setting_of_the_engine_is_another_class() {
        let settings: [fn(&mut Config); 3] = [
            |config| _ = config.cranelift_opt_level(OptLevel::None),
            |config| _ = config.wasm_simd(false),
            |config| _ = config.generate_address_map(true),
        ];
        let ours = hash_of(|_| ());
        for (number, setting) in settings.into_iter().enumerate() {
            assert_ne!(ours, hash_of(setting), "{number}");
        }
    }

    #[test]
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    fn a_processor_without_our_abilities_is_of_another_class() {
        let plain = hash_of(|config| _ = config.target("x86_64-unknown-linux-gnu").expect("known"));
        assert_ne!(hash_of(|_| ()), plain);
    }
}
