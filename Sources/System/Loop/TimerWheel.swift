/// When what falls due: a hierarchical wheel of six levels with 64 slots each, one millisecond a slot at the lowest.
///
/// Scheduling and cancelling cost a few stores whatever the number of timers, so every connection may own one and move
/// it at each frame. A timer waits at the level of the highest bit in which its deadline differs from `elapsed`; when
/// time reaches its slot it moves down a level, and from the lowest it fires. Timers of one millisecond fire in the
/// order in which they were scheduled, because a slot is emptied from its front and nothing can enter a lower slot
/// before its upper slot has been emptied into it. The 64 slots of a level have one bit each in a word, so the next
/// deadline is found without a search. Pure: it knows no clock.
struct TimerWheel {
    /// A place in the wheel; the generation makes the place of a timer that has fired or been cancelled worthless.
    struct ID: Equatable {
        let index: Int32
        let generation: UInt32
    }

    private struct Entry {
        var deadline: UInt64 = 0
        var handler: (() -> Void)?
        var generation: UInt32 = 0
        var previous: Int32 = -1
        var next: Int32 = -1
        /// level × 64 + slot, or -1 while free.
        var list: Int32 = -1
    }

    private static let levels = 6
    /// Two years; anything later waits at the top level and is placed again. Two slots less than a full turn, so that a
    /// deadline never shares the slot that `elapsed` is in with the turn before it.
    private static let horizon: UInt64 = 62 << 30

    private var entries: [Entry] = []
    private var free: Int32 = -1
    private var heads = [Int32](repeating: -1, count: levels * 64)
    private var tails = [Int32](repeating: -1, count: levels * 64)
    private var occupied = [UInt64](repeating: 0, count: levels)
    private(set) var elapsed: UInt64
    private(set) var count = 0

    init(startingAt time: UInt64) {
        elapsed = time
    }

    mutating func schedule(at deadline: UInt64, _ handler: @escaping () -> Void) -> ID {
        let index: Int32
        if free >= 0 {
            index = free
            free = entries[Int(index)].next
        } else {
            index = Int32(entries.count)
            entries.append(Entry())
        }
        // A deadline that has passed waits in the present slot and fires at the next `popDue`.
        entries[Int(index)].deadline = max(deadline, elapsed)
        entries[Int(index)].handler = handler
        link(index)
        count += 1
        return ID(index: index, generation: entries[Int(index)].generation)
    }

    /// Gives the handler back if the timer was still waiting. The caller drops it, since what goes with it may come
    /// back to this wheel.
    mutating func cancel(_ id: ID) -> (() -> Void)? {
        guard isScheduled(id) else { return nil }
        unlink(id.index)
        let handler = entries[Int(id.index)].handler
        release(id.index)
        return handler
    }

    func isScheduled(_ id: ID) -> Bool {
        let index = Int(id.index)
        return index < entries.count && entries[index].generation == id.generation && entries[index].list >= 0
    }

    /// A time not after the earliest deadline, and exact when that deadline is less than 64 ms away. `nil` when nothing
    /// waits.
    var nextWake: UInt64? {
        for level in 0..<Self.levels where occupied[level] != 0 {
            return slotTime(level: level, slot: firstSlot(level))
        }
        return nil
    }

    /// Takes the earliest timer that is due at `now`; `nil` when none is left. The caller runs it and asks again, so a
    /// handler may schedule and cancel freely.
    mutating func popDue(at now: UInt64) -> (() -> Void)? {
        while let wake = nextWake, wake <= now {
            let level = occupied.firstIndex { $0 != 0 } ?? 0
            let list = level * 64 + firstSlot(level)
            elapsed = max(elapsed, wake)
            if level == 0 {
                let index = heads[list]
                unlink(index)
                let handler = entries[Int(index)].handler
                release(index)
                return handler
            }
            // All of it at once: the earliest of a slot may be its last.
            while heads[list] >= 0 {
                let index = heads[list]
                unlink(index)
                link(index)
            }
        }
        elapsed = max(elapsed, now)
        return nil
    }

    private func firstSlot(_ level: Int) -> Int {
        // Slots before the present one belong to the next turn of this level: only the top level can hold such.
        let present = UInt64(truncatingIfNeeded: elapsed >> (6 * UInt64(level))) & 63
        let ahead = occupied[level] & (~0 << present)
        return (ahead != 0 ? ahead : occupied[level]).trailingZeroBitCount
    }

    private func slotTime(level: Int, slot: Int) -> UInt64 {
        let shift = 6 * UInt64(level)
        let turn = (elapsed >> (shift + 6)) << (shift + 6)
        let time = turn | UInt64(slot) << shift
        // The slot that `elapsed` is in has begun already.
        return time + (1 << shift) <= elapsed ? time + (1 << (shift + 6)) : max(time, elapsed)
    }

    private mutating func link(_ index: Int32) {
        let deadline = min(entries[Int(index)].deadline, elapsed + Self.horizon)
        let differing = (elapsed ^ deadline) | 63
        let level = min((63 - differing.leadingZeroBitCount) / 6, Self.levels - 1)
        let slot = Int((deadline >> (6 * UInt64(level))) & 63)
        let list = level * 64 + slot
        entries[Int(index)].list = Int32(list)
        entries[Int(index)].next = -1
        entries[Int(index)].previous = tails[list]
        if tails[list] >= 0 { entries[Int(tails[list])].next = index } else { heads[list] = index }
        tails[list] = index
        occupied[level] |= 1 << UInt64(slot)
    }

    private mutating func unlink(_ index: Int32) {
        let entry = entries[Int(index)]
        let list = Int(entry.list)
        if entry.previous >= 0 { entries[Int(entry.previous)].next = entry.next } else { heads[list] = entry.next }
        if entry.next >= 0 { entries[Int(entry.next)].previous = entry.previous } else { tails[list] = entry.previous }
        if heads[list] < 0 { occupied[list / 64] &= ~(1 << UInt64(list % 64)) }
        entries[Int(index)].list = -1
    }

    private mutating func release(_ index: Int32) {
        entries[Int(index)].handler = nil
        entries[Int(index)].generation &+= 1
        entries[Int(index)].next = free
        free = index
        count -= 1
    }
}
