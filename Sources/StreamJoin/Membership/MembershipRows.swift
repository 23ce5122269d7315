import Wire

extension Identified where Identity == UUID {
    static func hash(_ identity: UUID, _ seed: (UInt64, UInt64)) -> UInt64 { identity.hash(seed) }
}

/// A user who is in some chat: 24 bytes, without padding, so that a checkpoint can hold it as it is.
struct UserEntry: Identified, BitwiseCopyable, Equatable, Sendable {
    /// In a free row, `high` links to the next free one.
    var id: UUID
    /// In how many chats; a free row has none.
    var references: UInt32
    /// Where the user's deliveries go; kept because it costs a hash of the id's text to know.
    var partition: UInt32

    var identity: UUID { id }
}

/// A chat: 32 bytes, without padding.
struct ChatEntry: Identified, BitwiseCopyable, Equatable, Sendable {
    enum State: UInt64 {
        /// Only members are known so far.
        case unknown = 0
        case present = 1
        case deleted = 2
        case free = 3
    }

    /// In a free row, `high` links to the next free one.
    var id: UUID
    /// `meta_version` above, the flags in the low byte.
    private var versionAndFlags: UInt64 = 0
    var start: UInt32 = 0
    var count: UInt32 = 0

    var identity: UUID { id }

    init(id: UUID) {
        self.id = id
    }

    /// What a checkpoint sums up.
    var words: (UInt64, UInt64) { (versionAndFlags, UInt64(start) << 32 | UInt64(count)) }

    /// 55 bits: a change every microsecond for a thousand years.
    var version: Int64 {
        get { Int64(bitPattern: versionAndFlags) >> 8 }
        set { versionAndFlags = UInt64(bitPattern: newValue << 8) | versionAndFlags & 0xff }
    }

    var state: State {
        get { State(rawValue: versionAndFlags & 3) ?? .free }
        set { versionAndFlags = versionAndFlags & ~3 | newValue.rawValue }
    }

    var isShadow: Bool {
        get { versionAndFlags & 4 != 0 }
        set { versionAndFlags = versionAndFlags & ~4 | (newValue ? 4 : 0) }
    }

    /// The layout follows from the count: a list in a block of its size class, or a set that is at most three quarters full.
    func capacity(_ listedMax: Int) -> Int {
        let count = Int(count)
        if count <= listedMax { return MemberArena.size(ofClass: MemberArena.sizeClass(for: count)) }
        let slots = count + count / 3 + 1
        return 1 << (Int.bitWidth - (slots - 1).leadingZeroBitCount)
    }

    func sizeClass(_ listedMax: Int) -> Int {
        MemberArena.sizeClass(for: Int(count) <= listedMax ? Int(count) : capacity(listedMax))
    }

    /// The cells that mean something: a list's members, or all of a set's slots.
    func block(_ listedMax: Int) -> Range<Int> {
        let start = Int(start)
        return start..<start + (Int(count) <= listedMax ? Int(count) : capacity(listedMax))
    }
}
