//! Does something now and then.

use std::time::Duration;

fn main() {
    loop {
        println!("the worker is at it");
        std::thread::sleep(Duration::from_secs(10));
    }
}
