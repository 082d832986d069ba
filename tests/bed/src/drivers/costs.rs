//! What each driver moved and cost, as the guests print it, in one table.

use std::sync::{Arc, Mutex, PoisonError};

use comfy_table::{CellAlignment, Table, presets};

use super::kinds::Driver;
use crate::choice::GuestMode;
use crate::guest::names_a_cut;
use crate::xen::Xen;

/// What a line of these figures begins with.
const PREFIX: &str = "drivers: ";

/// What a driver moved and cost in one guest: the sum of its lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DriverCosts {
    /// The driver.
    pub driver: String,
    /// Bytes that the device moved for the driver's user.
    pub bytes: u64,
    /// Exchanges.
    pub exchanged: u64,
    /// Memory of the driver's own that was mapped in place.
    pub direct: u64,
    /// Memory of the driver's own that was mapped by a bounce buffer.
    pub bounced: u64,
    /// Hypercalls, a multicall counted as one.
    pub hypercalls: u64,
    /// Interrupts that arrived, or `None` if the driver polled at least once.
    pub interrupts: Option<u64>,
}

/// A row of the table: a driver in one guest.
#[derive(Clone, Debug, PartialEq, Eq)]
struct CostRow {
    xen: Xen,
    /// The mode of the guest, as the table calls it.
    mode: String,
    costs: DriverCosts,
}

/// The rows of all guests so far. Clones are the same table, so that parts of a suite can add to it.
#[derive(Clone, Debug, Default)]
pub struct CostTable(Arc<Mutex<Vec<CostRow>>>);

impl CostTable {
    /// Adds what a guest's console has, and returns it.
    ///
    /// # Errors
    /// A line of figures is malformed, or the console was cut.
    pub fn add(
        &self,
        xen: &Xen,
        mode: &str,
        console: &[String],
    ) -> Result<Vec<DriverCosts>, String> {
        let costs = of_console(console)?;
        let row = |costs| CostRow { xen: xen.clone(), mode: mode.to_owned(), costs };
        // A row is pushed whole, so the rows are whole after a panic, too.
        let mut rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        rows.extend(costs.iter().cloned().map(row));
        Ok(costs)
    }

    /// Prints the table, unless no guest has added a row.
    pub fn print(&self) {
        let rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !rows.is_empty() {
            println!("\n{}", drawn(&rows));
        }
    }
}

impl DriverCosts {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.strip_prefix(PREFIX)?.split(' ');
        let driver = words.next()?.strip_prefix("driver=")?.to_owned();
        let mut number = |name: &str| words.next()?.strip_prefix(name)?.parse::<u64>().ok();
        let mut costs = Self {
            driver,
            bytes: number("bytes=")?,
            exchanged: number("exchanged=")?,
            direct: number("direct=")?,
            bounced: number("bounced=")?,
            hypercalls: number("hypercalls=")?,
            interrupts: None,
        };
        costs.interrupts = match words.next()?.strip_prefix("interrupts=")? {
            "polling" => None,
            count => Some(count.parse().ok()?),
        };
        Some(costs)
    }

    fn add(&mut self, other: &Self) {
        self.bytes += other.bytes;
        self.exchanged += other.exchanged;
        self.direct += other.direct;
        self.bounced += other.bounced;
        self.hypercalls += other.hypercalls;
        self.interrupts = self.interrupts.zip(other.interrupts).map(|(one, other)| one + other);
    }
}

/// Returns the figures of each driver that a guest's console has, in the order in which they came.
///
/// # Errors
/// A line of figures is malformed, or the console was cut.
fn of_console(lines: &[String]) -> Result<Vec<DriverCosts>, String> {
    let mut all: Vec<DriverCosts> = Vec::new();
    for line in lines {
        if names_a_cut(line) {
            return Err(format!("the console was cut: {line}"));
        }
        if !line.starts_with(PREFIX) {
            continue;
        }
        let one = DriverCosts::parse(line).ok_or(format!("malformed figures: {line}"))?;
        match all.iter_mut().find(|sum| sum.driver == one.driver) {
            Some(sum) => sum.add(&one),
            None => all.push(one),
        }
    }
    Ok(all)
}

/// Checks that a driver moved data, that as PV, and only then, it exchanged memory, and that as domU, and only
/// then, interrupts arrived.
pub fn has_moved(driver: Driver, mode: GuestMode, costs: &[DriverCosts]) -> Result<(), String> {
    let name = driver.name();
    let Some(one) = costs.iter().find(|one| one.driver == name) else {
        return Err(format!("the guest prints no figures of {name}"));
    };
    if one.bytes == 0 {
        return Err(format!("{name} moved no byte"));
    }
    match (mode.is_pvh(), one.exchanged) {
        (true, 0) | (false, 1..) => {}
        (_, exchanged) => return Err(format!("{exchanged} exchanges for {name} as {mode}")),
    }
    // Interrupts reach drivers in a driver domain alone.
    match (mode, one.interrupts) {
        (GuestMode::PvDomu, Some(1..)) => Ok(()),
        (GuestMode::PvDomu, Some(0)) => Err(format!("no interrupt of {name} arrived as {mode}")),
        (GuestMode::PvDomu, None) => Err(format!("{name} polled as {mode}")),
        (_, None) => Ok(()),
        (_, Some(count)) => Err(format!("{count} interrupts of {name} as {mode}, which polls")),
    }
}

/// Draws the table, the rows of a driver together.
fn drawn(rows: &[CostRow]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "driver",
        "mode",
        "xen",
        "bytes moved",
        "exchanged",
        "direct",
        "bounced",
        "hypercalls",
        "interrupts",
    ]);
    let mut rows: Vec<&CostRow> = rows.iter().collect();
    rows.sort_by_key(|row| (row.costs.driver.clone(), row.mode.clone(), row.xen.place()));
    for CostRow { xen, mode, costs } in rows {
        let DriverCosts { driver, bytes, exchanged, direct, bounced, hypercalls, interrupts } =
            costs;
        let mut cells = vec![driver.clone(), mode.clone(), xen.to_string()];
        let numbers = [bytes, exchanged, direct, bounced, hypercalls];
        cells.extend(numbers.map(u64::to_string));
        cells.push(interrupts.map_or_else(|| "polling".to_owned(), |count| count.to_string()));
        table.add_row(cells);
    }
    for column in 3..=8 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn the_lines_of_a_driver_are_added_up() {
        let console = lines(
            "ok 1 a\n\
             drivers: driver=nvme bytes=10 exchanged=2 direct=3 bounced=4 hypercalls=5 interrupts=6\n\
             drivers: driver=virtio bytes=1 exchanged=1 direct=1 bounced=1 hypercalls=1 interrupts=polling\n\
             drivers: driver=nvme bytes=100 exchanged=20 direct=30 bounced=40 hypercalls=50 interrupts=60",
        );
        let costs = of_console(&console).unwrap();
        let numbers = |at: usize| {
            let it: &DriverCosts = &costs[at];
            let numbers = [it.bytes, it.exchanged, it.direct, it.bounced, it.hypercalls];
            (numbers, it.interrupts)
        };
        assert_eq!((costs.len(), costs[0].driver.as_str()), (2, "nvme"));
        assert_eq!((numbers(0), numbers(1)), (([110, 22, 33, 44, 55], Some(66)), ([1; 5], None)));
        assert_eq!(of_console(&lines("ok 1 a")), Ok(Vec::new()));
    }

    #[test]
    fn malformed_figures_are_an_error() {
        for line in [
            "drivers: driver=nvme bytes=10 exchanged=2 direct=3 bounced=4 hypercalls=5",
            "drivers: driver=nvme bytes=x exchanged=2 direct=3 bounced=4 hypercalls=5 interrupts=6",
            "drivers: bytes=10 exchanged=2 direct=3 bounced=4 hypercalls=5 interrupts=6",
            "drivers: driver=nvme bytes=1 exchanged=2 direct=3 bounced=4 hypercalls=5 interrupts=x",
        ] {
            assert!(of_console(&lines(line)).unwrap_err().contains(line), "{line}");
        }
    }

    #[test]
    fn a_driver_must_move_data_by_exchanged_memory_as_pv_alone() {
        let moved = |mode, driver: &str, bytes, exchanged| {
            let driver = driver.to_owned();
            let interrupts = (mode == GuestMode::PvDomu).then_some(1);
            let costs =
                DriverCosts { driver, bytes, exchanged, interrupts, ..DriverCosts::default() };
            has_moved(Driver::Nvme, mode, &[costs])
        };
        let (pv, pvh) = (GuestMode::PvDomu, GuestMode::PvhDom0);
        assert_eq!((moved(pv, "nvme", 1, 1), moved(pvh, "nvme", 1, 0)), (Ok(()), Ok(())));
        let exchanges = [moved(pv, "nvme", 1, 0), moved(pvh, "nvme", 1, 1)];
        let said = exchanges.map(|result| result.unwrap_err());
        assert_eq!(said, ["0 exchanges for nvme as pv-domu", "1 exchanges for nvme as pvh-dom0"]);
        assert_eq!(moved(pv, "nvme", 0, 1), Err("nvme moved no byte".to_owned()));
        assert!(moved(pv, "virtio", 1, 1).unwrap_err().contains("no figures of nvme"));
    }

    #[test]
    fn a_driver_must_get_interrupts_in_a_driver_domain_alone() {
        let by = |mode: GuestMode, interrupts| {
            let (driver, exchanged) = ("nvme".to_owned(), u64::from(!mode.is_pvh()));
            let costs =
                DriverCosts { driver, bytes: 1, exchanged, interrupts, ..DriverCosts::default() };
            has_moved(Driver::Nvme, mode, &[costs])
        };
        let domu = GuestMode::PvDomu;
        assert_eq!(by(domu, Some(1)), Ok(()));
        assert_eq!(by(domu, None), Err("nvme polled as pv-domu".to_owned()));
        assert!(by(domu, Some(0)).unwrap_err().contains("no interrupt of nvme"));
        for dom0 in [GuestMode::PvDom0, GuestMode::PvhDom0] {
            assert_eq!(by(dom0, None), Ok(()));
            assert!(by(dom0, Some(1)).unwrap_err().contains("1 interrupts of nvme"), "{dom0}");
        }
    }

    #[test]
    fn the_table_has_a_line_for_each_row() {
        let costs = DriverCosts { driver: "nvme".to_owned(), bytes: 7, ..DriverCosts::default() };
        let row = CostRow { xen: Xen::default_release(), mode: "pv-dom0".to_owned(), costs };
        let text = drawn(&[row]).to_string();
        let words: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(words, ["nvme", "pv-dom0", "4.17", "7", "0", "0", "0", "0", "polling"]);
    }
}
