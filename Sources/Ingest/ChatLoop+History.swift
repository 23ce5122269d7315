import PostgresClient
import PushLink
import Store
import Runtime
import System
import WebSocket
import Wire

/// A session whose cursor is older than Delivery's window is served from History first, page by page as its socket takes
/// them; then Delivery fills the rest.
extension ChatLoop {
    /// How often History is asked whether it has come as far as the window's start, and for how long.
    private static let waitMs = 50
    private static let waitsMax = 100

    func serveHistory(_ run: UInt32, _ from: Cursor, _ until: Cursor, _ client: Client, _ session: Session) {
        metrics.histories.add()
        guard let database else { return giveUp(run, client, session) }
        let number = client.number
        let topic = configuration.names[.messages]
        func check(_ waits: Int) {
            database.first(Sync.coverage(topic: topic)) { [weak self] result in
                guard let self, let (client, session) = self.session(number) else { return }
                guard case .success(let found) = result, let coverage = found,
                    !coverage.isTooOld(cursorMs: from.timestamp)
                else { return giveUp(run, client, session) }
                if coverage.isComplete(upToMs: until.timestamp) {
                    begin(run, from, Int32(coverage.partitionCount), client, session)
                } else if waits < Self.waitsMax {
                    loop.schedule(afterMs: Self.waitMs) { check(waits + 1) }
                } else {
                    giveUp(run, client, session)
                }
            }
        }
        check(0)
    }

    /// The place is lost for the stream; the device reloads its conversations, and is live from here.
    private func giveUp(_ run: UInt32, _ client: Client, _ session: Session) {
        guard session.feed.isServing(run) else { return }
        session.isReset = true
        perform(session.feed.historyServed(run), client, session)
    }

    private func begin(
        _ run: UInt32, _ from: Cursor, _ partitionCount: Int32, _ client: Client, _ session: Session
    ) {
        guard let database else { return }
        let number = client.number
        let user = session.user
        database.rows(Sync.bounds(afterMs: from.timestamp, topic: configuration.names[.messages])) {
            [weak self] result in
            guard let self, let (client, session) = self.session(number) else { return }
            guard case .success(let bounds) = result else { return giveUp(run, client, session) }
            database.rows(Sync.chats(of: user, since: bounds)) { [weak self] result in
                guard let self, let (client, session) = self.session(number) else { return }
                guard case .success(let chats) = result else { return giveUp(run, client, session) }
                let plan = SyncPlan(chats, bounds: bounds, partitionCount: partitionCount)
                page(run, plan, from, client, session)
            }
        }
    }

    /// Messages of History bear the cursor that the device came with: should it go away before the end, it starts there
    /// again, and drops what it has already.
    private func page(_ run: UInt32, _ plan: SyncPlan, _ from: Cursor, _ client: Client, _ session: Session) {
        // Another owner has been registered with since: what is missing then is asked for anew.
        guard session.feed.isServing(run) else { return }
        guard !plan.isFinished else { return perform(session.feed.historyServed(run), client, session) }
        guard let database else { return }
        let number = client.number
        if let stream = client.stream, stream.isBlocked || stream.queuedBytes > configuration.limits.fillBytes {
            loop.schedule(afterMs: Self.waitMs) { [weak self] in
                guard let self, let (client, session) = self.session(number) else { return }
                page(run, plan, from, client, session)
            }
            return
        }
        var plan = plan
        database.rows(plan.nextPage()) { [weak self] result in
            guard let self, let (client, session) = self.session(number) else { return }
            guard case .success(let rows) = result else { return giveUp(run, client, session) }
            guard session.feed.isServing(run) else { return }
            var json = JSONWriter()
            for row in rows {
                json.removeAll()
                row.writeEvent(to: &json)
                json.bytes.removeLast()
                json.bytes += ",\"cursor\":\"\(from.text)\"}".utf8
                client.send(Frame.encode(.text, json.bytes))
            }
            plan.received(rows)
            page(run, plan, from, client, session)
        }
    }
}
