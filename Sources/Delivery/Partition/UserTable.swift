public import Wire

/// The users of one delivery partition, numbered from zero: whatever is kept of a user (sessions, recent deliveries,
/// presence) stands at this number in an array of its own, so the id is hashed once a recipient.
///
/// Open addressing over the numbers, linear probing, at most three quarters full: 16 bytes for the id and 4 to 11 for
/// its place in the table. Users are never removed one by one: there are no more than people who have been sent something or
/// had a session since the partition was taken over, and they go with it.
public struct UserTable: Sendable {
    public private(set) var ids: [UserID] = []
    private var slots: [UInt32]
    private var mask: Int

    private static let empty = UInt32.max

    public init() {
        slots = [UInt32](repeating: Self.empty, count: 64)
        mask = 63
    }

    public var count: Int { ids.count }

    @inline(__always)
    private static func hash(_ user: UserID) -> Int {
        // The bits of a random UUID are good as they are; made-up ones (all alike but for a count) need stirring.
        let mixed = (user.uuid.high ^ user.uuid.low &* 0x9e37_79b9_7f4a_7c15) &* 0xff51_afd7_ed55_8ccd
        return Int(truncatingIfNeeded: mixed ^ mixed >> 32)
    }

    public func find(_ user: UserID) -> Int? {
        var slot = Self.hash(user) & mask
        while slots[slot] != Self.empty {
            let index = Int(slots[slot])
            if ids[index] == user { return index }
            slot = (slot &+ 1) & mask
        }
        return nil
    }

    /// The user's number, a new one if need be.
    public mutating func intern(_ user: UserID) -> Int {
        var slot = Self.hash(user) & mask
        while slots[slot] != Self.empty {
            let index = Int(slots[slot])
            if ids[index] == user { return index }
            slot = (slot &+ 1) & mask
        }
        let index = ids.count
        ids.append(user)
        slots[slot] = UInt32(index)
        if ids.count * 4 > slots.count * 3 { grow() }
        return index
    }

    private mutating func grow() {
        slots = [UInt32](repeating: Self.empty, count: slots.count * 2)
        mask = slots.count - 1
        for (index, user) in ids.enumerated() {
            var slot = Self.hash(user) & mask
            while slots[slot] != Self.empty { slot = (slot &+ 1) & mask }
            slots[slot] = UInt32(index)
        }
    }
}
