import Wire

/// A row that is found by what identifies it.
protocol Identified {
    associatedtype Identity: Equatable
    var identity: Identity { get }
    /// A hash that nobody can foresee who does not know the seed.
    static func hash(_ identity: Identity, _ seed: (UInt64, UInt64)) -> UInt64
}

extension UUID {
    @inline(__always)
    func hash(_ seed: (UInt64, UInt64)) -> UInt64 {
        let product = (high ^ seed.0).multipliedFullWidth(by: (low ^ seed.1) | 1)
        return product.high ^ product.low
    }
}

/// Finds rows by id: an open-addressing table of row numbers that leaves the ids where they are, in the rows.
///
/// Four bytes a slot and at most three slots in four in use: 5.3 to 10.7 bytes a row. The hash is keyed by a seed of
/// the process, because the ids of chats, users and messages are chosen by others.
struct IdentifierIndex<Row: Identified>: Sendable {
    /// Row number + 1; zero is empty.
    private var slots: [UInt32]
    private(set) var count = 0
    private let seed: (UInt64, UInt64)

    init() {
        slots = [UInt32](repeating: 0, count: 16)
        var generator = SystemRandomNumberGenerator()
        seed = (generator.next(), generator.next())
    }

    func find(_ identity: Row.Identity, in rows: borrowing [Row]) -> Int? {
        let mask = slots.count &- 1
        var slot = home(of: identity) & mask
        while true {
            let entry = slots[slot]
            if entry == 0 { return nil }
            let row = Int(entry) &- 1
            if rows[row].identity == identity { return row }
            slot = (slot &+ 1) & mask
        }
    }

    /// The slot at which a search for the id begins. For reading ahead: its value is of no use.
    func firstSlot(_ identity: Row.Identity) -> UInt32 {
        slots[home(of: identity) & (slots.count &- 1)]
    }

    /// Adds a row whose id is not in the index yet.
    mutating func insert(_ row: Int, of rows: borrowing [Row]) {
        if (count + 1) * 4 > slots.count * 3 { grow(to: slots.count * 2, rows) }
        place(row, rows[row].identity)
        count += 1
    }

    /// Takes a row out; what it had pushed aside moves back, so no marker of it stays behind.
    mutating func remove(_ row: Int, of rows: borrowing [Row]) {
        let mask = slots.count - 1
        var slot = home(of: rows[row].identity) & mask
        while slots[slot] != UInt32(row + 1) {
            precondition(slots[slot] != 0, "a row to remove must be in the index")
            slot = (slot + 1) & mask
        }
        var next = (slot + 1) & mask
        while slots[next] != 0 {
            let home = home(of: rows[Int(slots[next]) - 1].identity) & mask
            // It may fill the hole only if the hole lies between its home and where it is now.
            if (next - home) & mask >= (next - slot) & mask {
                slots[slot] = slots[next]
                slot = next
            }
            next = (next + 1) & mask
        }
        slots[slot] = 0
        count -= 1
    }

    /// Makes room for that many rows at once.
    mutating func reserve(_ rowCount: Int, _ rows: borrowing [Row]) {
        var size = slots.count
        while rowCount * 4 > size * 3 { size *= 2 }
        if size > slots.count { grow(to: size, rows) }
    }

    var bytes: Int { slots.capacity * 4 }

    private mutating func grow(to size: Int, _ rows: borrowing [Row]) {
        let old = slots
        slots = [UInt32](repeating: 0, count: size)
        for entry in old where entry != 0 { place(Int(entry) - 1, rows[Int(entry) - 1].identity) }
    }

    private mutating func place(_ row: Int, _ identity: Row.Identity) {
        let mask = slots.count &- 1
        var slot = home(of: identity) & mask
        while slots[slot] != 0 { slot = (slot &+ 1) & mask }
        slots[slot] = UInt32(truncatingIfNeeded: row &+ 1)
    }

    private func home(of identity: Row.Identity) -> Int {
        Int(truncatingIfNeeded: Row.hash(identity, seed))
    }
}

extension Array {
    /// Appends and grows by a quarter rather than by doubling: the table's arrays are most of the process's memory.
    @inline(__always)
    mutating func appendTightly(_ element: Element) {
        if count == capacity { reserveCapacity(count + count / 4 + 64) }
        append(element)
    }
}
