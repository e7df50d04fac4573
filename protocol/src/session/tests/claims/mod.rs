//! Examples that read as claims, by what they are about.

mod acks;
mod aim;
mod delivery;
mod dismissal;
mod ends;
mod frames;
mod ownership;
mod receipts;
mod recovery;
mod redelivery;
