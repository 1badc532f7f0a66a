mod cursor;
mod parameters;
mod prefer;
mod shape;
