import PushLink

/// The clients of one loop by number: looking one up is an index and a comparison.
struct SessionTable {
    private struct Slot {
        var client: Client?
        var number: SessionNumber
    }

    private var slots: [Slot] = []
    private var numbers = SessionNumbers()
    private(set) var count = 0

    /// `nil` when a million clients are there already.
    mutating func insert(_ client: Client) -> SessionNumber? {
        guard count < SessionNumbers.slotsMax else { return nil }
        let number = numbers.take()
        let slot = SessionNumbers.slot(of: number)
        if slot == slots.count {
            slots.append(Slot(client: client, number: number))
        } else {
            slots[slot] = Slot(client: client, number: number)
        }
        count += 1
        return number
    }

    subscript(number: SessionNumber) -> Client? {
        let slot = SessionNumbers.slot(of: number)
        guard slot < slots.count, slots[slot].number == number else { return nil }
        return slots[slot].client
    }

    mutating func remove(_ number: SessionNumber) {
        guard self[number] != nil else { return }
        slots[SessionNumbers.slot(of: number)].client = nil
        numbers.free(number)
        count -= 1
    }

    var slotCount: Int { slots.count }

    /// The client in a slot, for sweeps that go round a part at a time.
    func client(inSlot slot: Int) -> Client? { slots[slot].client }

    func forEach(_ body: (Client) -> Void) {
        for slot in slots { if let client = slot.client { body(client) } }
    }
}

/// Numbers for sessions: a slot, and how often it was used. Freed slots wait in a queue of at least a thousand, so a number
/// comes again only after millions of others: a frame that names an old session never meets a new one.
struct SessionNumbers {
    private static let slotBits: UInt32 = 20
    static let slotsMax = 1 << Int(slotBits)
    private static let slotMask = SessionNumber(slotsMax - 1)
    private static let freeMin = 1024

    private var generations: [UInt16] = []
    private var freed: [UInt32] = []
    private var head = 0

    static func slot(of number: SessionNumber) -> Int { Int(number & slotMask) }

    /// The caller sees to it that there are not more at once than there are slots.
    mutating func take() -> SessionNumber {
        let slot: Int
        let waiting = freed.count - head
        if waiting > Self.freeMin || generations.count == Self.slotsMax {
            slot = Int(freed[head])
            head += 1
            if head > 4096, head > freed.count / 2 {
                freed.removeFirst(head)
                head = 0
            }
        } else {
            slot = generations.count
            generations.append(0)
        }
        generations[slot] = (generations[slot] + 1) & 0xfff
        return SessionNumber(generations[slot]) << Self.slotBits | SessionNumber(slot)
    }

    mutating func free(_ number: SessionNumber) { freed.append(UInt32(Self.slot(of: number))) }
}
