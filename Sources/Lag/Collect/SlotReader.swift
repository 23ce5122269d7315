import PostgresClient

/// Asks the database for its replication slots. Blocks its thread for as long as the database likes: whoever asks does so
/// from a thread that nobody waits for.
final class SlotReader {
    struct Answer: Sendable {
        var slots: [LagSample.Slot] = []
        var missing: [String] = []
    }

    private let url: String
    private var connection: PostgresConnection?

    init(_ url: String) { self.url = url }

    func read() -> Answer {
        var answer = Answer()
        do throws(PostgresError) {
            if connection?.isGood != true { connection = try PostgresConnection(url) }
            guard let rows = try connection?.query(Self.sql) else { return answer }
            for row in 0..<rows.rowCount {
                answer.slots.append(
                    LagSample.Slot(
                        name: rows.text(row, 0) ?? "", isActive: rows.bool(row, 1) ?? false,
                        confirmed: rows.text(row, 2) ?? "", retainedBytes: rows.int(row, 3) ?? 0,
                        safeBytes: rows.int(row, 4), walStatus: rows.text(row, 5) ?? "",
                        // Nothing is under way: nothing is late.
                        behindSeconds: rows.bool(row, 1) == true ? rows.double(row, 6) ?? 0 : nil))
            }
            if rows.isEmpty {
                answer.missing.append("the database has no logical replication slot: fanout cdc makes it")
            }
        } catch {
            connection = nil
            answer.missing.append("slots: \(error.message)")
        }
        return answer
    }

    private static let sql = """
        SELECT s.slot_name, s.active, coalesce(s.confirmed_flush_lsn::text, ''),
               coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn), 0)::bigint, s.safe_wal_size,
               coalesce(s.wal_status, 'lost'), extract(epoch FROM r.flush_lag)::float8
        FROM pg_replication_slots s LEFT JOIN pg_stat_replication r ON r.pid = s.active_pid
        WHERE s.slot_type = 'logical' AND s.database = current_database() ORDER BY 1
        """
}
