import PostgresClient
import PushLink
import Runtime
import System
import Wire

/// Devices' cursors in Postgres, on a thread of its own: the database may be slow or away, deliveries go on.
final class CursorStore {
    private let connectionString: String
    private let log: Log
    private var thread: LoopThread?
    private var database: LoopBound<CursorDatabase>?
    private var remote: EventLoop.Remote?
    private var loop: EventLoop?
    private var answer: (([(lookUp: CursorLookUp, stored: StoredCursor)]) -> Void)?
    private var isStoring = false
    /// Devices to be looked up; all that wait are asked for with one question.
    private var lookUps: [CursorLookUp] = []
    private var isLookingUp = false

    /// More at once than this are refused: their devices come again.
    private static let lookUpsMax = 50_000

    init(_ connectionString: String, log: Log) {
        self.connectionString = connectionString
        self.log = log
    }

    func start(
        on loop: EventLoop, _ answer: @escaping ([(lookUp: CursorLookUp, stored: StoredCursor)]) -> Void
    ) throws {
        self.loop = loop
        remote = loop.remote
        self.answer = answer
        let made = Handover<LoopBound<CursorDatabase>>()
        let (connectionString, log) = (connectionString, log)
        thread = try LoopThread.start(name: "cursors") { loop in
            let database = CursorDatabase(connectionString, log: log)
            made.put(LoopBound(database, on: loop))
            return database
        }
        database = made.take()
    }

    /// What cannot be written now is handed back. One write at a time: while one is under way, what comes waits with the
    /// caller, where newer cursors replace older ones.
    func store(_ cursors: [DeviceKey: Cursor], _ putBack: @escaping ([DeviceKey: Cursor]) -> Void) {
        guard !cursors.isEmpty else { return }
        guard !isStoring, let database, let remote, let thread, let loop else { return putBack(cursors) }
        isStoring = true
        let done = LoopBound<(Bool) -> Void>(
            { [self] stored in
                isStoring = false
                if !stored { putBack(cursors) }
            }, on: loop)
        thread.remote.execute { loop in
            let stored = database.value(on: loop).store(cursors)
            remote.execute { loop in done.value(on: loop)(stored) }
        }
    }

    /// Whether it will be answered.
    func lookUp(_ lookUp: CursorLookUp) -> Bool {
        guard lookUps.count < Self.lookUpsMax, database != nil else { return false }
        lookUps.append(lookUp)
        askNext()
        return true
    }

    private func askNext() {
        guard !isLookingUp, !lookUps.isEmpty, let database, let remote, let thread, let loop else { return }
        isLookingUp = true
        let asked = Array(lookUps.prefix(CursorDatabase.rowsMax))
        lookUps.removeFirst(asked.count)
        let done = LoopBound<([DeviceKey: Cursor]?) -> Void>(
            { [self] found in
                isLookingUp = false
                askNext()
                answer?(
                    asked.map { lookUp in
                        guard let found else { return (lookUp, .unavailable) }
                        return (lookUp, found[lookUp.device].map { .found($0) } ?? StoredCursor.none)
                    })
            }, on: loop)
        thread.remote.execute { loop in
            let found = database.value(on: loop).lookUp(asked.map(\.device))
            remote.execute { loop in done.value(on: loop)(found) }
        }
    }

    /// Writes the last ones and ends.
    func close(_ cursors: [DeviceKey: Cursor]) {
        guard let thread, let database else { return }
        thread.remote.execute { loop in
            if !cursors.isEmpty { _ = database.value(on: loop).store(cursors) }
            loop.stop()
        }
        thread.join()
    }
}

/// The connection, on its thread; made when it is first needed and made anew when it is lost.
final class CursorDatabase {
    private let connectionString: String
    private let log: Log
    private var connection: Connection?
    private var retryAtMs: Int64 = 0

    /// A connection behind a reference, since it cannot be copied into an optional and out again.
    private final class Connection {
        var postgres: PostgresConnection

        init(_ connectionString: String) throws(PostgresError) {
            postgres = try PostgresConnection(
                connectionString, overriding: [("connect_timeout", "3"), ("application_name", "fanout delivery")])
            postgres.answerTimeoutMs = 5_000
        }
    }

    private static let retryMs: Int64 = 1_000
    static let rowsMax = 5_000

    private static let upsert = """
        INSERT INTO devices (user_id, device_id, cursor, updated_at)
        SELECT u, d, c, now() FROM unnest($1::uuid[], $2::uuid[], $3::text[]) AS new (u, d, c)
        ON CONFLICT (user_id, device_id) DO UPDATE SET cursor = excluded.cursor, updated_at = excluded.updated_at
        """

    init(_ connectionString: String, log: Log) {
        self.connectionString = connectionString
        self.log = log
    }

    func store(_ cursors: [DeviceKey: Cursor]) -> Bool {
        var rest = Array(cursors)
        while !rest.isEmpty {
            let slice = rest.suffix(Self.rowsMax)
            let isStored = withConnection { postgres throws(PostgresError) in
                try postgres.query(
                    Self.upsert,
                    [
                        .ids(slice.map(\.key.user)), .ids(slice.map(\.key.device)),
                        .text("{" + slice.map(\.value.text).joined(separator: ",") + "}"),
                    ])
                return true
            }
            guard isStored == true else { return false }
            rest.removeLast(slice.count)
        }
        return true
    }

    /// The stored cursors of those devices that have one; `nil` when they cannot be asked for.
    func lookUp(_ devices: [DeviceKey]) -> [DeviceKey: Cursor]? {
        withConnection { postgres throws(PostgresError) in
            let rows = try postgres.query(
                """
                SELECT user_id, device_id, cursor FROM devices
                JOIN unnest($1::uuid[], $2::uuid[]) AS asked (user_id, device_id) USING (user_id, device_id)
                """, [.ids(devices.map(\.user)), .ids(devices.map(\.device))])
            var found: [DeviceKey: Cursor] = [:]
            for row in 0..<rows.rowCount {
                guard let user: UserID = rows.id(row, 0), let device: DeviceID = rows.id(row, 1),
                    let cursor = rows.text(row, 2).flatMap({ Cursor($0) })
                else { continue }
                found[DeviceKey(user: user, device: device)] = cursor
            }
            return found
        }
    }

    private func withConnection<Value>(
        _ body: (inout PostgresConnection) throws(PostgresError) -> Value
    ) -> Value? {
        do throws(PostgresError) {
            if connection?.postgres.isGood != true {
                guard SystemClock().wallMs >= retryAtMs else { return nil }
                connection = nil
                connection = try Connection(connectionString)
            }
            guard let connection else { return nil }
            return try body(&connection.postgres)
        } catch {
            retryAtMs = SystemClock().wallMs + Self.retryMs
            log.warning("device cursors", ["error": .string("\(error)")])
            return nil
        }
    }
}
