//! Examples that read as claims, by what they are about.

mod acks;
mod delivery;
mod dismissal;
mod ends;
mod frames;
mod ownership;
mod recovery;
mod redelivery;
