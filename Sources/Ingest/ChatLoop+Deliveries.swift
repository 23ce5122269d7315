import PushLink
import System
import WebSocket
import Wire

/// What Delivery sends, on its way to devices.
extension ChatLoop {
    /// One event for one session. The frame is the same array for all of its recipients.
    func deliver(
        _ frame: inout EventFrame, _ cursor: Cursor, _ kind: EventKind, _ change: MembershipChange?,
        to number: SessionNumber
    ) {
        guard let client = clients[number], let session = client.session, session.state == .active else { return }
        let heldBytesMax = configuration.limits.heldBytesMax
        let verdict = session.feed.receive(
            cursor, kind, frame.plain, byteCount: frame.plain.count, heldBytesMax: heldBytesMax)
        switch verdict {
        case .deliver:
            // A full queue is no place for what is stale in a few seconds.
            if kind.isDroppable, let stream = client.stream, stream.isBlocked { return }
            if let change { note(change, for: session) }
            client.send(frame.bytes(for: session, &deflate))
        case .hold: if let change { note(change, for: session) }
        case .drop: break
        }
    }

    func perform(_ step: SessionFeed<[UInt8]>.Step, _ client: Client, _ session: Session) {
        switch step {
        case .nothing: break
        case .register: links.registerAgain(client.number, session)
        case .fill(let after, let through):
            // The next page is asked for when this one has left, so a slow device holds one page and no more.
            if hasRoom(client) { links.fill(client.number, session, after: after, through: through) }
        case .history(let run, let from, let until): serveHistory(run, from, until, client, session)
        case .live(let isFirst):
            let held = session.feed.takeHeld()
            if !held.isEmpty { client.send(held.reduce(into: [UInt8]()) { $0 += $1.payload }) }
            guard isFirst || session.isReset else { return }
            client.send(ServerFrame.caughtUp(session.feed.after ?? .start, isReset: session.isReset))
            session.isReset = false
        }
    }

    /// Whether the device's queue has room for the next part of what it missed; if not, `drained` is called when it has.
    func hasRoom(_ client: Client) -> Bool {
        guard let stream = client.stream else { return false }
        if stream.isBlocked { return false }
        guard stream.queuedBytes > configuration.limits.fillBytes else { return true }
        // Written, but not sent before the tick's end: unless the socket turns out to be full, nothing else tells.
        let number = client.number
        loop.schedule(afterMs: 1) { [weak self] in
            guard let self, let (client, session) = session(number) else { return }
            drained(client, session)
        }
        return false
    }

    /// The device's queue has room again.
    func drained(_ client: Client, _ session: Session) {
        presence.tellUnheard(client, session)
        if let catchUp = session.busy?.catchUp { goOn(catchUp, client, session) }
        if let (after, through) = session.feed.fillDue, hasRoom(client) {
            links.fill(client.number, session, after: after, through: through)
        }
    }

    /// Keeps what the session knows of its chats true. What it does not know yet it will ask for, and hear at least this
    /// version: so an event to a hundred thousand sessions makes none of them larger.
    func note(_ change: MembershipChange, for session: Session) {
        // A chat may have grown large, or shrunk, or be a large one that the user has joined or left.
        session.isLargeChatsStale = true
        // Events come behind what Postgres has answered since: a removal that was undone again is no news.
        guard var known = session.busy?.standings[change.chat], change.metaVersion >= known.metaVersion else { return }
        known.metaVersion = change.metaVersion
        if change.user == session.user { known.isMember = change.isMember }
        session.extras.standings[change.chat] = known
    }
}

/// A `member` or `members_changed` event, as far as the chat server itself has to know it.
struct MembershipChange: Equatable {
    var chat: ChatID
    /// Whom it is about; many people, each of whom has an event of their own, where it is `nil`.
    var user: UserID?
    var isMember: Bool
    var metaVersion: Int64

    private enum Field: String, CaseIterable {
        case chat, user, change
        case metaVersion = "meta_version"
    }
    private static let fields = JSONFields<Field>()

    /// `nil` for anything else.
    init?(event bytes: Span<UInt8>) {
        do throws(JSONError) {
            var chat: ChatID?
            var user: UserID?
            var isMember: Bool?
            metaVersion = 0
            var reader = JSONReader(bytes)
            try reader.beginObject()
            while let name = try reader.nextField() {
                switch Self.fields.find(name, in: bytes) {
                case .chat: chat = try reader.readID()
                case .user: user = try reader.readID()
                case .change: isMember = try !reader.readString().equals("removed", in: bytes)
                case .metaVersion: metaVersion = try reader.readInt()
                case nil: try reader.skipValue()
                }
            }
            guard let chat, (user == nil) == (isMember == nil), user != nil || metaVersion > 0 else { return nil }
            (self.chat, self.user, self.isMember) = (chat, user, isMember ?? true)
        } catch {
            return nil
        }
    }
}
