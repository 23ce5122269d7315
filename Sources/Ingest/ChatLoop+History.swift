import PostgresClient
import PushLink
import Runtime
import Store
import System
import WebSocket
import Wire

/// One session's way through History: what it missed before Delivery's window, a page at a time from Postgres and each page
/// in parts, as the device's socket takes them.
final class CatchUp {
    let run: UInt32
    let from: Cursor
    let until: Cursor
    /// Until then History is waited for; each page that comes moves it on.
    var deadlineMs: UInt64
    var plan: SyncPlan?
    /// Of the present page, what has yet to be sent.
    var rows: ArraySlice<StoredMessage> = []
    /// Postgres has been asked, or is to be asked again after a while.
    var isAsking = false

    init(run: UInt32, from: Cursor, until: Cursor, deadlineMs: UInt64) {
        self.run = run
        self.from = from
        self.until = until
        self.deadlineMs = deadlineMs
    }
}

/// A session whose cursor is older than Delivery's window is served from History first; then it is registered anew, and
/// Delivery fills the rest.
///
/// Whatever stands in the way for a time (a sink that is behind, a Postgres that does not answer) is waited for. What lasts
/// longer closes the session, which comes back with the cursor it had: the place is given up only when what lies there is
/// kept no longer.
extension ChatLoop {
    /// How often History is asked whether it has come as far as the window's start, and Postgres after a failure.
    private static let waitMs = 50
    private static let retryMs = 500
    /// Rows of a page, of which one has 10,000 characters at most: what one session holds of History at a time.
    private static let pageRows = 100

    func serveHistory(_ run: UInt32, _ from: Cursor, _ until: Cursor, _ client: Client, _ session: Session) {
        metrics.histories.add()
        // Memberships may have changed in what the session never saw.
        session.busy?.standings = [:]
        let catchUp = CatchUp(run: run, from: from, until: until, deadlineMs: deadlineMs)
        guard database != nil else {
            session.isReset = true
            return finish(catchUp, client, session)
        }
        session.extras.catchUp = catchUp
        goOn(catchUp, client, session)
    }

    private var deadlineMs: UInt64 { loop.monotonicMs + UInt64(configuration.limits.historyWaitMs) }

    /// The next step of a run that is still wanted.
    func goOn(_ catchUp: CatchUp, _ client: Client, _ session: Session) {
        guard session.feed.isServing(catchUp.run) else {
            // Another owner has been registered with since: what is missing then is asked for anew.
            if session.busy?.catchUp === catchUp { session.busy?.catchUp = nil }
            return
        }
        guard !catchUp.isAsking else { return }
        guard catchUp.plan != nil else { return waitForSink(catchUp, client.number) }
        send(catchUp, client)
        guard session.state != .closing, catchUp.rows.isEmpty, hasRoom(client) else { return }
        if catchUp.plan?.isFinished == true {
            askLargeChats(catchUp, session.user, client.number)
        } else {
            askForPage(catchUp, client.number)
        }
    }

    /// Messages of History bear the cursor that the device came with: should it go away before the end, it starts there
    /// again, and drops what it has already.
    private func send(_ catchUp: CatchUp, _ client: Client) {
        var json = JSONWriter()
        let cursor = catchUp.from.text
        while !catchUp.rows.isEmpty, hasRoom(client) {
            guard let row = catchUp.rows.popFirst() else { return }
            json.removeAll()
            row.writeEvent(to: &json)
            json.bytes.removeLast()
            json.bytes += ",\"cursor\":\"\(cursor)\"}".utf8
            client.send(Frame.encode(.text, json.bytes))
        }
    }

    /// The place is kept no longer: the device reloads its conversations, and is live from here.
    private func loseThePlace(_ catchUp: CatchUp, _ client: Client, _ session: Session) {
        session.isReset = true
        catchUp.plan = SyncPlan([], bounds: [], partitionCount: 1)
        goOn(catchUp, client, session)
    }

    // MARK: Questions

    private func waitForSink(_ catchUp: CatchUp, _ number: SessionNumber) {
        ask(Sync.coverage(topic: configuration.names[.messages]), catchUp, number) {
            [unowned self] rows, client, session in
            guard let coverage = rows.first else { return loseThePlace(catchUp, client, session) }
            // Also for a device that will reload: what it is not sent here, it must find in History.
            let isComplete = coverage.isComplete(upToMs: catchUp.until.timestamp)
            if coverage.isTooOld(cursorMs: catchUp.from.timestamp) {
                if isComplete { return loseThePlace(catchUp, client, session) }
                if loop.monotonicMs >= catchUp.deadlineMs {
                    log.warning("a device that has lost its place reloads before History has all of it")
                    return loseThePlace(catchUp, client, session)
                }
            }
            guard isComplete else { return wait(Self.waitMs, "History is behind", catchUp, client) }
            makePlan(catchUp, Int32(coverage.partitionCount), number)
        }
    }

    private func makePlan(_ catchUp: CatchUp, _ partitionCount: Int32, _ number: SessionNumber) {
        let bounds = Sync.bounds(afterMs: catchUp.from.timestamp, topic: configuration.names[.messages])
        ask(bounds, catchUp, number) { [unowned self] bounds, client, session in
            ask(Sync.chats(of: session.user, since: bounds), catchUp, number) { [unowned self] chats, client, session in
                catchUp.plan = SyncPlan(chats, bounds: bounds, partitionCount: partitionCount, limit: Self.pageRows)
                goOn(catchUp, client, session)
            }
        }
    }

    private func askForPage(_ catchUp: CatchUp, _ number: SessionNumber) {
        guard var plan = catchUp.plan else { return }
        ask(plan.nextPage(), catchUp, number) { [unowned self] rows, client, session in
            plan.received(rows)
            catchUp.deadlineMs = deadlineMs
            catchUp.plan = plan
            catchUp.rows = rows[...]
            goOn(catchUp, client, session)
        }
    }

    /// History tells messages only. Which large chats the user has joined or left in what it passed over is asked anew, last
    /// of all: what changes from the window's start on, the owner knows.
    private func askLargeChats(_ catchUp: CatchUp, _ user: UserID, _ number: SessionNumber) {
        let question = Membership.largeChats(of: [user], membersMin: configuration.limits.largeChat + 1)
        ask(question, catchUp, number) { [unowned self] rows, client, session in
            session.extras.largeChats = rows.map(\.chat)
            session.isLargeChatsStale = false
            finish(catchUp, client, session)
        }
    }

    private func finish(_ catchUp: CatchUp, _ client: Client, _ session: Session) {
        session.busy?.catchUp = nil
        perform(session.feed.historyServed(catchUp.run), client, session)
    }

    private func ask<Row>(
        _ statement: Store.Statement<Row>, _ catchUp: CatchUp, _ number: SessionNumber,
        _ body: @escaping ([Row], Client, Session) -> Void
    ) {
        guard let database else { return }
        catchUp.isAsking = true
        database.rows(statement) { [weak self] result in
            guard let self, let (client, session) = session(number) else { return }
            catchUp.isAsking = false
            switch result {
            case .success(let rows):
                guard session.feed.isServing(catchUp.run) else { return goOn(catchUp, client, session) }
                body(rows, client, session)
            case .failure(let error): wait(Self.retryMs, "\(error)", catchUp, client)
            }
        }
    }

    private func wait(_ delayMs: Int, _ reason: String, _ catchUp: CatchUp, _ client: Client) {
        guard loop.monotonicMs < catchUp.deadlineMs else {
            log.warning("a device is sent away: what it missed cannot be read", ["reason": .init(reason)])
            return refuse(client, .tryAgainLater, "\(Int.random(in: 500...3000))")
        }
        let number = client.number
        catchUp.isAsking = true
        loop.schedule(afterMs: delayMs) { [weak self] in
            guard let self, let (client, session) = session(number) else { return }
            catchUp.isAsking = false
            goOn(catchUp, client, session)
        }
    }
}
