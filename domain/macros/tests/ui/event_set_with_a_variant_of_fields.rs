extern crate tidelog_domain as tidelog;
use tidelog::prelude::*;

#[event_set]
enum Sale {
    Order { event: OrderEvent },
}

#[events("order")]
enum OrderEvent {
    Placed,
}

fn main() {}
