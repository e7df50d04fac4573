//! What the integration tests stand on: processes that die with their test, sockets that speak the protocol or break
//! it, a proxy that loses connections, and waiting with a deadline.
//!
//! It must not know what a single test claims. Invariant: no process and no folder outlives the test that made it,
//! also when the test panics.

pub(crate) mod client;
pub(crate) mod disk;
pub(crate) mod folder;
pub(crate) mod follower;
pub(crate) mod node;
pub(crate) mod port;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod raw;
pub(crate) mod redis_server;
pub(crate) mod token;
pub(crate) mod wait;

pub(crate) use client::{Client, ConnectOptions};
pub(crate) use follower::Follower;
pub(crate) use node::{Node, NodeOptions};
pub(crate) use proxy::TcpProxy;
pub(crate) use raw::RawSocket;
pub(crate) use redis_server::{Redis, RedisOptions};
pub(crate) use token::Token;
pub(crate) use wait::{eventually, within};
