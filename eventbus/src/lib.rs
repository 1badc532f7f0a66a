//! tidelog's event bus: the bus port and its adapters, the relay, the gate, subscriptions.
