import KafkaClient
import PostgresClient
import Wire

/// Asks the database for its replication slots. Blocks its thread for as long as the database likes: whoever asks does so
/// from a thread that nobody waits for.
final class SlotReader {
    struct Answer: Sendable {
        var slots: [LagSample.Slot] = []
        var missing: [String] = []
    }

    private let url: String
    private let query: LagQuery
    private var connection: PostgresConnection?
    private var admin: Admin?

    private static let kafkaTimeoutMs = 2000

    init(_ url: String, _ query: LagQuery) {
        self.url = url
        self.query = query
    }

    func read() -> Answer {
        var answer = Answer()
        do throws(PostgresError) {
            if connection?.isGood != true { connection = try PostgresConnection(url) }
            guard let rows = try connection?.query(Self.sql) else { return answer }
            let notes = notes(ofSlots: (0..<rows.rowCount).compactMap { rows.text($0, 0) })
            for row in 0..<rows.rowCount {
                var slot = LagSample.Slot(
                    name: rows.text(row, 0) ?? "", isActive: rows.bool(row, 1) ?? false,
                    confirmed: rows.text(row, 2) ?? "", retainedBytes: rows.int(row, 3) ?? 0,
                    safeBytes: rows.int(row, 4), walStatus: rows.text(row, 5) ?? "",
                    // Nothing is under way: nothing is late.
                    behindSeconds: rows.bool(row, 1) == true ? rows.double(row, 6) ?? 0 : nil)
                slot.note = notes[slot.name]
                if let atMs = slot.note?.atMs, let nowMs = rows.double(row, 7) {
                    slot.confirmedAgeSeconds = max(0, (nowMs - Double(atMs)) / 1000)
                }
                answer.slots.append(slot)
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

    /// What CDC has said with its commits. A cluster that does not answer is told of elsewhere.
    private func notes(ofSlots slots: [String]) -> [String: SlotNote] {
        var notes: [String: SlotNote] = [:]
        do throws(KafkaError) {
            if admin == nil { admin = try Admin(query.kafka, log: { _ in }) }
            let groups = slots.map { "\(query.names.group("cdc")).\($0)" }
            guard let answers = try admin?.groupOffsets(groups, timeoutMs: Self.kafkaTimeoutMs) else { return notes }
            for (slot, answer) in zip(slots, answers) {
                guard case .success(let offsets) = answer.1 else { continue }
                for offset in offsets {
                    if let note = try? SlotNote(decoding: Array(offset.metadata.utf8).span), note.slot == slot {
                        notes[slot] = note
                    }
                }
            }
        } catch {
            admin = nil
        }
        return notes
    }

    private static let sql = """
        SELECT s.slot_name, s.active, coalesce(s.confirmed_flush_lsn::text, ''),
               coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn), 0)::bigint, s.safe_wal_size,
               coalesce(s.wal_status, 'lost'), extract(epoch FROM r.flush_lag)::float8,
               extract(epoch FROM clock_timestamp())::float8 * 1000
        FROM pg_replication_slots s LEFT JOIN pg_stat_replication r ON r.pid = s.active_pid
        WHERE s.slot_type = 'logical' AND s.database = current_database() ORDER BY 1
        """
}
