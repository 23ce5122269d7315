import Wire

/// The last messages that a partition has accepted: by (sender, id), so that repeats are recognised, and by seq, so
/// that it is known who wrote what is to be edited or deleted.
///
/// Exactly the last `capacity` accepted messages, whatever their age: what it knows follows from the log alone, so a
/// task that starts again and refills it from `chat.messages` decides as the one before it did.
struct RecentMessages: Sendable {
    struct Entry: Identified, Sendable {
        struct Identity: Equatable {
            var from: UUID
            var id: UUID
        }

        var identity: Identity
        var chat: ChatID
        var seq: Int64
        var ts: Int64
        var kind: IncomingMessage.Kind

        static func hash(_ identity: Identity, _ seed: (UInt64, UInt64)) -> UInt64 {
            identity.from.hash(seed) &+ identity.id.hash((seed.1, seed.0))
        }
    }

    enum Original: Equatable {
        case message(chat: ChatID, from: UserID)
        /// Nothing that can be edited stands at that seq.
        case none
        /// It is older than what is kept here.
        case older
    }

    let capacity: Int
    private var ring: [Entry] = []
    private var index = IdentifierIndex<Entry>()
    /// The oldest entry, once the ring is full.
    private var oldest = 0

    init(capacity: Int) {
        precondition(capacity > 0, "a window holds at least one message")
        self.capacity = capacity
    }

    var count: Int { ring.count }
    var last: Entry? { ring.isEmpty ? nil : ring[(oldest + ring.count - 1) % ring.count] }

    func find(_ id: MessageID, from user: UserID) -> Entry? {
        index.find(Entry.Identity(from: user.uuid, id: id.uuid), in: ring).map { ring[$0] }
    }

    func original(at seq: Int64) -> Original {
        guard !ring.isEmpty, seq >= ring[oldest].seq else { return .older }
        var (low, high) = (0, ring.count)
        while low < high {
            let middle = (low + high) / 2
            if ring[place(middle)].seq < seq { low = middle + 1 } else { high = middle }
        }
        guard low < ring.count, ring[place(low)].seq == seq, ring[place(low)].kind == .text else { return .none }
        let entry = ring[place(low)]
        return .message(chat: entry.chat, from: UserID(entry.identity.from))
    }

    /// Adds a message above all others. One that is already there is not added again, nor is one that is not above.
    mutating func append(
        _ id: MessageID, chat: ChatID, from user: UserID, seq: Int64, ts: Int64, kind: IncomingMessage.Kind
    ) {
        let identity = Entry.Identity(from: user.uuid, id: id.uuid)
        guard seq > last?.seq ?? -1, index.find(identity, in: ring) == nil else { return }
        let entry = Entry(identity: identity, chat: chat, seq: seq, ts: ts, kind: kind)
        if ring.count < capacity {
            ring.append(entry)
            index.insert(ring.count - 1, of: ring)
        } else {
            index.remove(oldest, of: ring)
            ring[oldest] = entry
            index.insert(oldest, of: ring)
            oldest = (oldest + 1) % capacity
        }
    }

    private func place(_ position: Int) -> Int {
        let place = oldest + position
        return place < ring.count ? place : place - ring.count
    }
}
