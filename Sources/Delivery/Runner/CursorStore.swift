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
    private var answer: LoopBound<(CursorLookUp, StoredCursor) -> Void>?
    private var isStoring = false

    init(_ connectionString: String, log: Log) {
        self.connectionString = connectionString
        self.log = log
    }

    func start(on loop: EventLoop, _ answer: @escaping (CursorLookUp, StoredCursor) -> Void) {
        self.loop = loop
        remote = loop.remote
        self.answer = LoopBound(answer, on: loop)
        let made = Handover<LoopBound<CursorDatabase>>()
        let (connectionString, log) = (connectionString, log)
        thread = try? LoopThread.start(name: "cursors") { loop in
            let database = CursorDatabase(connectionString, log: log)
            made.put(LoopBound(database, on: loop))
            return database
        }
        if thread != nil { database = made.take() }
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

    func lookUp(_ lookUp: CursorLookUp) {
        guard let database, let remote, let thread, let answer else { return }
        thread.remote.execute { loop in
            let stored = database.value(on: loop).lookUp(lookUp.device)
            remote.execute { loop in answer.value(on: loop)(lookUp, stored) }
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
    private static let rowsMax = 5_000

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

    func lookUp(_ device: DeviceKey) -> StoredCursor {
        let found: StoredCursor? = withConnection { postgres throws(PostgresError) in
            let rows = try postgres.query(
                "SELECT cursor FROM devices WHERE user_id = $1 AND device_id = $2",
                [.id(device.user), .id(device.device)])
            guard !rows.isEmpty, let text = rows.text(0, 0), let cursor = Cursor(text) else { return .none }
            return .found(cursor)
        }
        return found ?? .unavailable
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
