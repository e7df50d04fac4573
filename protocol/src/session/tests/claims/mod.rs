//! Examples that read as claims, by what they are about.

mod acks;
mod delivery;
mod ends;
mod frames;
mod ownership;
mod recovery;
mod redelivery;
