import KafkaClient
import Runtime
import Wire

/// What operators see of the join.
struct JoinMetrics: Sendable {
    let accepted: Counter
    let already: Counter
    let rejected: Counter
    let recipients: Counter
    let signals: Counter
    let signalsDropped: Counter
    let changes: Counter
    let changesRepeated: Counter
    let changesWithoutEffect: Counter
    let restoredChanges: Counter
    let memberEvents: Counter
    let bulkChanges: Counter
    let waitingChanges: Gauge
    let heldMessages: Counter
    let commitWaits: Counter
    let membersReads: Counter
    let originalReads: Counter
    let commits: Counter
    private let logsChanged: [Topic: Counter]
    let fromLog: Histogram
    let held: Histogram
    let member: Gauge
    let partitions: Gauge
    let followed: Gauge
    let restoring: Gauge
    let waiting: Gauge
    let memberships: Gauge
    let chats: Gauge
    let users: Gauge
    let tableBytes: Gauge

    let faults: ReadFaults

    init(_ metrics: Metrics, _ log: Log) {
        faults = ReadFaults(log, metrics, stage: "join")
        accepted = metrics.counter("fanout_join_messages_total", "Messages accepted and fanned out.")
        already = metrics.counter("fanout_join_repeats_total", "Messages dropped because they were accepted before.")
        rejected = metrics.counter("fanout_join_rejected_total", "Records written to chat.rejected.")
        recipients = metrics.counter("fanout_join_recipients_total", "Recipients named in chat.deliveries.")
        signals = metrics.counter("fanout_join_signals_total", "Receipts and typing signals fanned out.")
        signalsDropped = metrics.counter(
            "fanout_join_signals_dropped_total", "Signals of large chats, or of senders who are not members.")
        changes = metrics.counter("fanout_join_changes_total", "Changes of chats and memberships applied.")
        changesRepeated = metrics.counter(
            "fanout_join_changes_repeated_total", "Changes that CDC wrote twice and that were dropped.")
        changesWithoutEffect = metrics.counter(
            "fanout_join_changes_without_effect_total", "Changes of rows that change no membership, such as muting.")
        restoredChanges = metrics.counter(
            "fanout_join_restored_changes_total", "Records of chat.members read to restore partitions.")
        memberEvents = metrics.counter("fanout_join_member_events_total", "Membership changes told to devices.")
        bulkChanges = metrics.counter(
            "fanout_join_bulk_changes_total", "Statements that changed many members of a chat, told as one change.")
        waitingChanges = metrics.gauge(
            "fanout_join_waiting_changes",
            "Changes of membership that were read and wait: for the rest of their transaction, or for their turn.")
        heldMessages = metrics.counter(
            "fanout_join_held_total", "Messages that waited for the membership their sender had seen.")
        commitWaits = metrics.counter(
            "fanout_join_commit_waits_total", "Messages that waited until a change of their chat was committed.")
        membersReads = metrics.counter("fanout_join_members_reads_total", "Chats read from Postgres.")
        originalReads = metrics.counter(
            "fanout_join_original_reads_total", "Old messages read back to check an edit or a delete.")
        commits = metrics.counter("fanout_join_commits_total", "Commits of positions.")
        logsChanged = Dictionary(
            uniqueKeysWithValues: [Topic.incoming, .members, .signals].map { topic in
                let help = "Partitions that were begun anew because the topic was made again or had lost its end"
                return (topic, metrics.counter("fanout_log_changed_total", help, ["topic": topic.rawValue]))
            })
        fromLog = metrics.histogram(
            "fanout_join_log_seconds", "From a message's place in the log to the join, sampled once a batch.")
        held = metrics.histogram("fanout_join_held_seconds", "How long a message waited for membership.")
        member = metrics.gauge("fanout_join_member", "1 while the group has told this process which partitions it has.")
        followed = metrics.gauge(
            "fanout_join_followed_partitions", "Partitions of others whose membership is kept, to take them over.")
        partitions = metrics.gauge("fanout_join_partitions", "Partitions that this process has.")
        restoring = metrics.gauge("fanout_join_restoring", "Partitions that are being restored.")
        waiting = metrics.gauge("fanout_join_waiting", "Partitions whose next message waits.")
        memberships = metrics.gauge("fanout_join_memberships", "Memberships in the table.")
        chats = metrics.gauge("fanout_join_chats", "Chats in the table.")
        users = metrics.gauge("fanout_join_users", "Users in the table.")
        tableBytes = metrics.gauge("fanout_join_table_bytes", "Memory of the membership table.")
    }

    func logChanged(_ topic: Topic) { logsChanged[topic]?.add() }

    /// Adds what a task has done since the last time.
    func add(_ counts: JoinCounts, since last: JoinCounts) {
        accepted.add(counts.accepted - last.accepted)
        already.add(counts.already - last.already)
        rejected.add(counts.rejected - last.rejected)
        recipients.add(counts.recipients - last.recipients)
        signals.add(counts.signals - last.signals)
        signalsDropped.add(counts.signalsDropped - last.signalsDropped)
        changes.add(counts.changes - last.changes)
        changesRepeated.add(counts.changesRepeated - last.changesRepeated)
        changesWithoutEffect.add(counts.changesWithoutEffect - last.changesWithoutEffect)
        memberEvents.add(counts.memberEvents - last.memberEvents)
        bulkChanges.add(counts.bulkChanges - last.bulkChanges)
        commitWaits.add(counts.commitWaits - last.commitWaits)
        originalReads.add(counts.originalReads - last.originalReads)
        let messages = counts.heldMessages - last.heldMessages
        if messages > 0 {
            heldMessages.add(messages)
            held.record(ns: (counts.heldNs - last.heldNs) / UInt64(messages), count: messages)
        }
    }
}
