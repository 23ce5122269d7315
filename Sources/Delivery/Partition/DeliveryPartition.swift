public import PushLink
public import Wire

/// One owned partition of `chat.deliveries`: everything that is known of its users, and what each record means for them.
///
/// Life: *restoring* (records from before the committed offset refill the window and the dedupe), *hearing* (the chat
/// servers tell their sessions), *live*.
public struct DeliveryPartition {
    public enum Phase: Equatable, Sendable {
        case restoring
        case hearing(deadlineMs: Int64)
        case live
    }

    public enum Outcome: Equatable, Sendable {
        /// To be sent to the targets.
        case routed(EventKind)
        /// Of before the committed offset: remembered, not sent.
        case restored
        /// Its source has been seen already.
        case duplicate
        /// Not a delivery record.
        case rejected(JSONError)
    }

    public let number: Int32
    public internal(set) var term: UInt64
    /// The log that its offsets are of.
    let log: LogIdentity?
    public internal(set) var phase = Phase.restoring
    /// Records before this only teach which sources have been seen: a repeat whose first writing was not read would look
    /// new, and repeats come soon after.
    private let remembersFrom: Int64
    /// The first record that is to be delivered.
    public let liveFrom: Int64
    /// The last record taken.
    public private(set) var routed: Cursor
    /// What the log is known to hold at least.
    public private(set) var knownEnd: Int64

    public private(set) var users = UserTable()
    public internal(set) var router = Router()
    public internal(set) var window: HotWindow
    public internal(set) var presence: Presence
    var watchers = Watchers()
    private var moves = AudienceMoves()
    /// The instances that were not sent something, or may not have got it, with the first offset of it. What they miss they
    /// fill when they have named their sessions again.
    private(set) var heldFrom: [Int: Int64] = [:]
    /// Messages that the window let go of before the only instances of these users had them.
    private var unseen: [Unseen] = []
    private var dedupe = SourceDedupe()
    private let savedDedupe: (state: SourceDedupe, offset: Int64)?
    private var isSavedDedupeMerged = false
    /// The present record's, kept for its storage.
    private var recipients: [Int] = []

    /// - Parameters:
    ///   - readsFrom: the first record that will come.
    ///   - remembersFrom: the first record that the window may keep, between the other two.
    ///   - saved: the dedupe as of an offset at or before `liveFrom`, from the commit's metadata.
    public init(
        number: Int32, term: UInt64, log: LogIdentity?, readsFrom: Int64, remembersFrom: Int64, liveFrom: Int64,
        knownEnd: Int64, saved: (state: SourceDedupe, offset: Int64)?, awaitsPresence: Bool, windowBytesMax: Int,
        presenceGraceMs: Int64
    ) {
        self.number = number
        self.log = log
        self.term = term
        self.remembersFrom = remembersFrom
        self.liveFrom = liveFrom
        self.knownEnd = max(knownEnd, liveFrom)
        routed = Cursor(offset: readsFrom - 1, timestamp: 0)
        window = HotWindow(bytesMax: windowBytesMax, start: Cursor(offset: remembersFrom - 1, timestamp: 0))
        presence = Presence(graceMs: presenceGraceMs)
        savedDedupe = saved
        self.awaitsPresence = awaitsPresence
    }

    /// Whether `chat.presence` has yet to tell who was online.
    var awaitsPresence: Bool

    /// Whether everything from before `liveFrom` has been read.
    public var isRestored: Bool { routed.offset >= liveFrom - 1 && !awaitsPresence }

    /// The log has no more records before this offset: what is missing was compacted or is past retention.
    public mutating func skip(to nextOffset: Int64) {
        // No record stands there, so no other time can contradict the one before.
        if nextOffset - 1 > routed.offset { routed.offset = nextOffset - 1 }
        knownEnd = max(knownEnd, nextOffset)
    }

    /// Passes over a record that is not to be read.
    mutating func skip(_ cursor: Cursor) {
        routed = cursor
        knownEnd = max(knownEnd, cursor.offset + 1)
    }

    /// A device that starts here has to have a time to tell History later. Where the log had no record to give one, now
    /// is after all that it ever held.
    mutating func dateStart(nowMs: Int64) {
        if routed.timestamp == 0 { routed.timestamp = nowMs }
    }

    public var dedupeState: SourceDedupe { dedupe }

    // MARK: - Records

    /// Takes the next record. `offline` collects recipients of a message who have no session.
    public mutating func take(
        _ cursor: Cursor, value: Span<UInt8>, source: Span<UInt8>?, windowFrom: Int64, targets: inout Targets,
        offline: inout [Int]
    ) -> Outcome {
        routed = cursor
        knownEnd = max(knownEnd, cursor.offset + 1)
        if let savedDedupe, !isSavedDedupeMerged, cursor.offset >= savedDedupe.offset {
            isSavedDedupeMerged = true
            dedupe.merge(savedDedupe.state)
        }
        if let source, !dedupe.admit(source) { return .duplicate }
        guard cursor.offset >= remembersFrom else {
            window = HotWindow(bytesMax: window.bytesMax, start: cursor)
            return .restored
        }
        do throws(JSONError) {
            let record = try DeliveryRecord(decoding: value)
            // Read to the end before anyone is served: a list is valid as a whole or not at all.
            recipients.removeAll(keepingCapacity: true)
            if case .users(let list) = record.recipients { try readRecipients(value.extracting(list)) }
            return deliver(
                record, cursor, event: value.extracting(record.event), windowFrom: windowFrom, &targets, &offline)
        } catch {
            return .rejected(error)
        }
    }

    private mutating func readRecipients(_ list: Span<UInt8>) throws(JSONError) {
        var reader = JSONReader(list)
        try reader.beginArray()
        while try reader.nextElement() { recipients.append(users.intern(try reader.readID())) }
    }

    private mutating func deliver(
        _ record: DeliveryRecord, _ cursor: Cursor, event: Span<UInt8>, windowFrom: Int64, _ targets: inout Targets,
        _ offline: inout [Int]
    ) -> Outcome {
        let kind = EventKind(ofEvent: event)
        let isLive = cursor.offset >= liveFrom
        window.append(cursor, kind: kind, event: event)
        if case .largeChat(let chat) = record.recipients {
            window.addRecipients(largeChat: chat)
            if isLive { router.route(largeChat: chat, into: &targets) }
        }
        if let device = record.device { window.limit(to: device) }
        for user in recipients {
            window.addRecipient(user: user)
            guard isLive else { continue }
            let isOnline = router.route(user: user, device: record.device, into: &targets)
            if !isOnline, kind == .message, record.device == nil { offline.append(user) }
        }
        letGo(before: windowFrom)
        moves.trim(before: windowFrom)
        if let chat = record.enters { move(recipients, chat, isMember: true, at: cursor) }
        if let chat = record.leaves { move(recipients, chat, isMember: false, at: cursor) }
        return isLive ? .routed(kind) : .restored
    }

    private mutating func move(_ users: [Int], _ chat: ChatID, isMember: Bool, at cursor: Cursor) {
        for user in users {
            router.declare(user: user, chat: chat, isMember: isMember)
            moves.add(user, chat, isMember: isMember, at: cursor)
        }
    }

    // MARK: - What could not be sent

    struct Unseen {
        let offset: Int64
        let event: [UInt8]
        let users: [Int]
    }

    mutating func hold(for instance: Int, from offset: Int64) {
        heldFrom[instance] = min(heldFrom[instance] ?? .max, offset)
    }

    mutating func release(_ instance: Int) -> Int64? { heldFrom.removeValue(forKey: instance) }

    /// The window lets go of its oldest records. Once one is gone, nobody can be told of it by a push any more: so those
    /// who are here only through instances that have not had it are told now.
    private mutating func letGo(before ms: Int64) {
        guard let first = heldFrom.values.min() else { return window.trim(before: ms) }
        for gone in window.trim(before: ms, messagesFrom: first) {
            let users = gone.largeChat.map { router.users(inLargeChat: $0) } ?? gone.users
            let unserved = users.filter { isServedOnlyByHeld($0, gone.offset) }
            if !unserved.isEmpty {
                unseen.append(Unseen(offset: gone.offset, event: gone.event, users: unserved))
            }
        }
    }

    private func isServedOnlyByHeld(_ user: Int, _ offset: Int64) -> Bool {
        router.isOnline(user: user) && router.instances(of: user).allSatisfy { heldFrom[$0] ?? .max <= offset }
    }

    mutating func takeUnseen() -> [Unseen] {
        guard !unseen.isEmpty else { return [] }
        defer { unseen = [] }
        return unseen
    }

    // MARK: - Sessions

    /// Whether a cursor is of another life of the topic; `nil` when it lies beyond what the log is known to hold.
    public func isForeign(_ cursor: Cursor) -> Bool? { cursor.offset >= knownEnd ? nil : window.isForeign(cursor) }

    mutating func logEnds(at offset: Int64) { knownEnd = max(knownEnd, offset) }

    /// Answers the sessions that have been taken over, and are forgotten here: those that the device had before, or this one.
    mutating func register(
        _ session: SessionRegistration, instance: Int, generation: UInt8, nowMs: Int64,
        outranks: (_ instance: Int, _ other: Int) -> Bool
    ) -> [(instance: Int, number: SessionNumber)] {
        let user = users.intern(session.user)
        let overtaken = router.overtaken(by: session, user: user, instance: instance, outranks: outranks)
        if let first = overtaken.first, first.instance == instance {
            unregister(instance: instance, number: session.number, nowMs: nowMs)
            return overtaken
        }
        let outcome = router.register(
            session, user: user, largeChats: moves.apply(to: session.largeChats, of: user), instance: instance,
            generation: generation)
        if outcome == .first { presence.firstSessionOpened(user: user, nowMs: nowMs) }
        // Behind the newcomer, so that the user has not been away in between.
        for old in overtaken { unregister(instance: old.instance, number: old.number, nowMs: nowMs) }
        return overtaken
    }

    /// Who a session is, and which large chats it was in when, as a fill needs them.
    func session(
        instance: Int, number: SessionNumber
    ) -> (user: Int, device: DeviceID, largeChats: [ChatStay])? {
        guard let session = router.session(instance: instance, number: number) else { return nil }
        return (session.user, session.device, moves.stays(of: session.user, now: session.largeChats))
    }

    mutating func unregister(instance: Int, number: SessionNumber, nowMs: Int64) {
        guard let (user, wasLast) = router.unregister(instance: instance, number: number), wasLast else { return }
        presence.lastSessionClosed(user: user, nowMs: nowMs)
    }

    /// A user who has no session left, with the large chats that it was in when.
    typealias Left = (user: Int, largeChats: [ChatStay])

    /// Forgets an instance's sessions, but for a generation; answers the users who have none left.
    mutating func removeInstance(
        _ instance: Int, keeping generation: UInt8?, seenMs: Int64? = nil, nowMs: Int64
    ) -> [Left] {
        var left: [Left] = []
        router.removeInstance(instance, keeping: generation) { [moves] user, chats in
            left.append((user, moves.stays(of: user, now: chats)))
        }
        for (user, _) in left { presence.lastSessionClosed(user: user, seenMs: seenMs, nowMs: nowMs) }
        return left
    }

    mutating func restorePresence(of user: UserID, status: PresenceStatus, lastSeen: Int64, nowMs: Int64) {
        presence.restore(user: users.intern(user), status: status, lastSeen: lastSeen, nowMs: nowMs)
    }

    func notice(of id: UserID) -> PresenceNotice {
        guard let user = users.find(id) else { return PresenceNotice(user: id, status: .offline, lastSeen: 0) }
        let now = presence.status(of: user)
        return PresenceNotice(user: id, status: now.status, lastSeen: now.lastSeen)
    }
}

extension EventKind {
    /// By the event's `type`, which every writer puts first; anything else is looked up.
    init(ofEvent event: Span<UInt8>) {
        let prefix: StaticString = #"{"type":""#
        let count = prefix.utf8CodeUnitCount
        if event.count > count + 8, event.extracting(0..<count).elementsEqual(#"{"type":""#) {
            // The first letters tell the types apart; what they begin is compared whole.
            let rest = event.extracting(count..<event.count)
            switch rest[0] {
            case 0x6d where Self.starts(rest, "message\""): self = .message
            case 0x6d where Self.starts(rest, "member\"") || Self.starts(rest, "members_changed\""): self = .member
            case 0x72 where Self.starts(rest, "receipt\""): self = .receipt
            case 0x74 where Self.starts(rest, "typing\""): self = .typing
            case 0x65 where Self.starts(rest, "error\""): self = .error
            default: self = .other
            }
            return
        }
        self = EventHead(event).kind
    }

    private static func starts(_ bytes: Span<UInt8>, _ text: String) -> Bool {
        let count = text.utf8.count
        return bytes.count >= count && bytes.extracting(0..<count).elementsEqual(text)
    }
}

/// What Delivery reads of an event when it must: for a push to somebody offline, or when `type` does not stand first.
struct EventHead {
    private(set) var kind = EventKind.other
    private(set) var chat: ChatID?
    private(set) var from: UserID?
    /// A new message, not an edit or a deletion of one.
    private(set) var isNewMessage = false

    private enum Field: String, CaseIterable { case type, chat, from, kind }
    private static let fields = JSONFields<Field>()

    init(_ event: Span<UInt8>) {
        try? read(event)
    }

    private mutating func read(_ event: Span<UInt8>) throws(JSONError) {
        var messageKind = true
        var reader = JSONReader(event)
        try reader.beginObject()
        while let name = try reader.nextField() {
            switch Self.fields.find(name, in: event) {
            case .type:
                let type = try reader.readString().text(in: event)
                kind =
                    switch type {
                    case "message": .message
                    case "member", "members_changed": .member
                    case "receipt": .receipt
                    case "typing": .typing
                    case "error": .error
                    default: .other
                    }
            case .chat: chat = try reader.readID()
            case .from: from = try reader.readID()
            case .kind: messageKind = try reader.readString().equals("text", in: event)
            case nil: try reader.skipValue()
            }
        }
        isNewMessage = kind == .message && messageKind
    }
}
