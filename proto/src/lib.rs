//! Talka's wire format.
//!
//! [`wire`] is generated from `proto/talka.proto`. Nothing in it is trusted: [`convert`] turns each
//! message into a domain type of `talka-core` and refuses what breaks a rule, naming the field. Code that
//! holds a domain type therefore never checks it again.

pub mod convert;

/// The generated messages, clients and servers.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]
pub mod wire {
    tonic::include_proto!("talka.v1");
}

/// The encoded `FileDescriptorSet`, for reflection and for the test of the access table.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/talka.descriptors"));

/// The version of the protocol that this build speaks.
pub const PROTOCOL: u32 = 4;
