internal import KafkaClient
import Runtime

/// What operators see of CDC. One fact, one place.
struct CDCMetrics: Sendable {
    let changes: Counter
    let records: Counter
    let bytes: Counter
    let transactions: Counter
    let snapshotRows: Counter
    let cut: Counter
    let reconnects: Counter
    let streaming: Gauge
    let standby: Gauge
    let retainedBytes: Gauge
    let safeBytes: Gauge
    let behindBytes: Gauge
    let slotInDanger: Gauge
    let confirmed: Gauge
    let lastCommitMs: Gauge
    let pending: Gauge
    let spilledBytes: Gauge
    let topicsAside: Gauge
    let asideChanges: Counter

    let faults: ReadFaults

    init(_ metrics: Metrics, _ log: Log) {
        faults = ReadFaults(log, metrics, stage: "cdc")
        changes = metrics.counter("fanout_cdc_changes_total", "Row changes read from the replication stream.")
        records = metrics.counter("fanout_cdc_records_total", "Records handed to Kafka, tombstones included.")
        bytes = metrics.counter("fanout_cdc_bytes_total", "Bytes of keys and values handed to Kafka.")
        transactions = metrics.counter("fanout_cdc_transactions_total", "Transactions read from the stream.")
        snapshotRows = metrics.counter("fanout_cdc_snapshot_rows_total", "Rows read by snapshots.")
        cut = metrics.counter("fanout_cdc_cut_rows_total", "Rows too large for a record, sent with their key only.")
        reconnects = metrics.counter("fanout_cdc_reconnects_total", "Sessions that ended and were begun again.")
        streaming = metrics.gauge("fanout_cdc_streaming", "1 while changes are streamed.")
        standby = metrics.gauge("fanout_cdc_standby", "1 while another process reads the slot.")
        retainedBytes = metrics.gauge("fanout_cdc_retained_wal_bytes", "Log that the server keeps for the slot.")
        safeBytes = metrics.gauge(
            "fanout_cdc_safe_wal_bytes", "Log that may be written before the slot is lost; -1 without a limit.")
        behindBytes = metrics.gauge("fanout_cdc_behind_bytes", "Log written since the confirmed position.")
        slotInDanger = metrics.gauge(
            "fanout_cdc_slot_in_danger", "1 when the slot's wal_status is unreserved or lost.")
        confirmed = metrics.gauge("fanout_cdc_confirmed_position", "The confirmed position in the log, as a number.")
        let lastCommitMs = Gauge()
        self.lastCommitMs = lastCommitMs
        metrics.gauge(
            "fanout_cdc_last_commit_timestamp_seconds", "When the last transaction read had committed."
        ) { Double(lastCommitMs.value) / 1000 }
        spilledBytes = metrics.gauge(
            "fanout_cdc_spilled_bytes", "Transactions under way that are kept on disk until they commit.")
        topicsAside = metrics.gauge(
            "fanout_cdc_topics_aside", "Topics that are not written because a table of theirs cannot be followed.")
        asideChanges = metrics.counter(
            "fanout_cdc_aside_changes_total", "Changes not written since their topic was put aside.")
        pending = metrics.gauge("fanout_cdc_pending_transactions", "Transactions not fully acknowledged by Kafka.")
    }
}
