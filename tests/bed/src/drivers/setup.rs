//! What drivers need besides a guest: devices, the files of these, and a server.

use std::path::{Path, PathBuf};

use super::costs::{DriverCosts, has_moved};
use super::kinds::Driver;
use super::server::{HOST, RunningServer, Server};
use crate::boot::Devices;
use crate::choice::GuestMode;
use crate::error::Result;
use crate::report::Reporter;
use crate::witness::fresh_seed;

/// What drivers need besides a guest that is to be booted.
#[derive(Debug)]
pub struct DriverSetup {
    drivers: Vec<Driver>,
    seed: u64,
    server: Option<Server>,
}

/// Devices that a guest can use.
#[derive(Debug)]
pub struct ReadyDevices {
    drivers: Vec<Driver>,
    seed: u64,
    dir: PathBuf,
    server: Option<RunningServer>,
}

impl DriverSetup {
    /// Returns what these drivers need, with content of a new seed.
    pub fn new(drivers: &[Driver]) -> Result<Self> {
        let seed = fresh_seed();
        let serves = drivers.contains(&Driver::E1000);
        let server = serves.then(|| Server::bind(seed)).transpose()?;
        Ok(Self { drivers: drivers.to_vec(), seed, server })
    }

    /// Returns the patterns of the self-tests, for `selftest=`.
    pub fn patterns(&self) -> String {
        let patterns = self.drivers.iter().map(|driver| format!("{}-*", driver.name()));
        patterns.collect::<Vec<_>>().join(",")
    }

    /// Returns the other options of the guest's command line.
    pub fn options(&self) -> String {
        let server = self.server.as_ref().map(|server| format!(" server={HOST}:{}", server.port()));
        format!("seed={}{}", self.seed, server.unwrap_or_default())
    }

    /// Returns the self-tests that must have passed.
    pub fn passed(&self) -> Vec<&'static str> {
        self.drivers.iter().flat_map(|driver| driver.passed()).copied().collect()
    }

    /// Returns the devices of the machine.
    pub fn devices(&self) -> Devices {
        let mut devices = Devices::default();
        self.drivers.iter().for_each(|driver| driver.add_to(&mut devices, self.seed));
        devices
    }

    /// Makes the files of the devices in the directory of the machine, and starts the server.
    pub fn prepare(self, dir: &Path) -> Result<ReadyDevices> {
        self.drivers.iter().try_for_each(|driver| driver.prepare(dir, self.seed))?;
        Ok(ReadyDevices {
            drivers: self.drivers,
            seed: self.seed,
            dir: dir.to_owned(),
            server: self.server.map(Server::run),
        })
    }
}

impl ReadyDevices {
    /// Notes what became of the devices, seen from outside, and what the drivers moved by the figures of the
    /// guest, after the guest has ended. `name` names the guest.
    pub fn note(
        self,
        name: &str,
        mode: GuestMode,
        costs: std::result::Result<Vec<DriverCosts>, String>,
        reporter: &mut Reporter,
    ) -> Result<()> {
        let moved = costs.and_then(|costs| {
            self.drivers.iter().try_for_each(|driver| has_moved(*driver, mode, &costs))
        });
        reporter.note(&format!("{name}: what the drivers moved"), moved);
        if let Some(server) = self.server {
            reporter.note(&format!("{name}: the server of the network card"), server.finish());
        }
        for driver in &self.drivers {
            if let Some(seen) = driver.check(&self.dir, self.seed)? {
                reporter.note(&format!("{name}: the {} disk, from outside", driver.name()), seen);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_gets_what_its_drivers_need() {
        let disk = DriverSetup::new(&[Driver::Nvme]).unwrap();
        assert_eq!((disk.patterns().as_str(), disk.devices().e1000), ("nvme-*", false));
        assert_eq!(disk.options(), format!("seed={}", disk.seed));
        let serial = disk.devices().nvme.unwrap().serial;
        assert_eq!(serial, format!("{:016x}", disk.seed));
        let both = DriverSetup::new(&[Driver::Nvme, Driver::E1000]).unwrap();
        assert_eq!((both.patterns().as_str(), both.devices().e1000), ("nvme-*,e1000-*", true));
        assert!(both.options().contains(" server=10.0.2.2:"), "{}", both.options());
        assert!(both.passed().contains(&"nvme-identify") && both.passed().contains(&"e1000-tcp"));
    }
}
