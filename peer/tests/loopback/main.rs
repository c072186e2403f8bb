//! Real endpoints on the loopback interface. One program, so that it is linked once.

mod blobs;
mod damage;
mod endpoints;
mod evil;
mod exchange;
mod hostile;
mod lan;
mod peers;
mod relay;
mod rpc;
mod swarm;
mod tcp;
