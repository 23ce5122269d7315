public import Wire

/// The join of one partition: records in, records out. It owns no thread, no clock and no handle.
///
/// Whoever runs it feeds `chat.members`, `chat.incoming` and `chat.signals` of the partition, each in the order of its
/// offsets, writes what appears in the output, and commits a `Positions` only when all output up to it is acknowledged
/// (`JoinProgress` keeps the account).
///
/// A message that must wait is not taken (`.waiting`): it is offered again when something has changed. Until then
/// nothing behind it may be offered, because output must stay in the order of the source.
///
/// **The same decision again.** After a crash, messages since the last commit are joined a second time. Readers drop the
/// repeats that they know by source position, so a repeat must say the same as the first time, or a message could be
/// accepted for some of its recipients and refused for others. Therefore
/// - a message is never joined against a change of its chat's membership that is not committed (it waits for the
///   commit, a few ms after the change and mostly over before a message comes), and nobody is told of a change before it
///   is committed;
/// - what Postgres or the clock has said is put where a successor finds it before it is used: a membership into the
///   log, a decision beside the committed positions;
/// - the messages that a predecessor may have joined are joined against the membership as of the commit: until
///   `replayEnd`, or until one must wait for a newer membership (there the predecessor must have waited as well), no
///   change is applied (`isReplaying`);
/// - a task goes at most `Limits.uncommittedMax` messages beyond what is committed, so that the replay is short.
///
/// **Slices.** A transaction can change a million members, and messages of other chats do not wait for them: changes are
/// applied a slice at a time (`goOn`), and each slice is committed and told. What has been read and not applied is read
/// again by a successor (from `members` to `memberships`), so that it decides the same about it. No message of a chat is
/// joined while only a part of what a statement has changed in it is applied.
/// `docs/join-correctness.md` has the argument, and what it means for two writers.
public struct JoinTask: Sendable {
    public let partition: Int32
    let setup: JoinSetup
    let incomingName: SourceName
    let membersName: SourceName
    private let signalsName: SourceName
    /// The next offset to take of each topic.
    public private(set) var next: Positions
    public private(set) var committed: Positions
    private var replayEnd: Int64
    private var changes: MembershipChanges
    private var untold = UntoldChanges()
    /// A slice has ended before the changes that could be applied did: nothing more is taken until they are.
    public private(set) var isBusy = false
    /// Where nothing waited last: from here a successor must read, to decide about each change as was decided here.
    private var start: Int64
    /// What a statement has changed so far that is told as one change.
    private var bulk: [ChatID: BulkChange] = [:]
    var recent: RecentMessages
    /// Chats whose membership has changed since the commit.
    private var changed: [ChatID: Change] = [:]
    /// Of some of them only a part.
    private var isPartly = false
    private var decided: Decided?
    var waiting: Waiting?
    public private(set) var counts = JoinCounts()

    /// The positions behind the last changes of a chat's rows, and behind the last membership read from Postgres.
    private struct Change: Sendable {
        var members: Int64 = 0
        var memberships: Int64 = 0

        /// Behind a part of what a statement has changed: no commit covers that.
        static let partly = Int64.max

        func isCovered(by positions: Positions) -> Bool {
            members <= positions.applied && memberships <= positions.memberships
        }
    }

    private struct Decided: Sendable {
        let offset: Int64
        let decision: JoinDecision
        var isCommitted = false
    }

    struct Waiting: Sendable {
        let offset: Int64
        var reason: JoinWait
        /// Since when it waits for this.
        var sinceNs: UInt64
        /// When to ask, or to ask again; `nil` while a question is under way.
        var askAtNs: UInt64?
        /// The newest version there is, as Postgres has answered: nothing would come of waiting for more.
        var existing: Int64?
        var original: Original?
    }

    /// - Parameters:
    ///   - committed: where the group's committed positions are; the table has been restored to `committed.members`.
    ///   - replayEnd: up to where a predecessor may have come: the end of `chat.incoming` when this task begins. It
    ///     counts no further than `uncommittedMax` beyond the commit.
    public init(partition: Int32, setup: JoinSetup, committed: Positions, replayEnd: Int64) {
        self.partition = partition
        self.setup = setup
        incomingName = SourceName(setup.names[.incoming], committed.runs.incoming)
        membersName = SourceName(setup.names[.members], committed.runs.members)
        signalsName = SourceName(setup.names[.signals], committed.runs.signals)
        self.next = committed
        self.committed = committed
        start = committed.members
        changes = MembershipChanges(bulkMin: setup.limits.bulkMin)
        self.replayEnd = min(replayEnd, committed.incoming + Int64(setup.limits.uncommittedMax))
        decided = committed.decision.map { Decided(offset: committed.incoming, decision: $0, isCommitted: true) }
        recent = RecentMessages(capacity: setup.limits.recentMessages)
    }

    // MARK: Start

    /// A record of `chat.messages`, in order: what the tasks before this one have accepted.
    public mutating func recall(_ message: AcceptedMessage) {
        guard message.seq < seq(committed.incoming) else { return }
        recent.append(
            message.id, chat: message.chat, from: message.from, seq: message.seq, ts: message.ts, kind: message.kind)
    }

    /// A record of `chat.members` below `committed.members`: it changes the table and nobody is told.
    public mutating func restore(
        key: Span<UInt8>?, value: Span<UInt8>?, offset: Int64, into table: inout MembershipTable
    ) {
        changes.restore(key: key, value: value, offset: offset, into: &table)
    }

    /// There is nothing more to restore. What still waits for its transaction's end was applied by the task that has
    /// committed beyond it; compaction may have removed the end.
    public mutating func restored(into table: inout MembershipTable) {
        changes.restored(into: &table)
    }

    /// A record from there to below `committed.memberships`: the tasks before this one have read it. What lies below
    /// `committed.applied` they have applied too, and may not have told.
    public mutating func catchUp(
        key: Span<UInt8>?, value: Span<UInt8>?, offset: Int64, table: inout MembershipTable
    ) {
        receive(key: key, value: value, offset: offset)
        applySteps(&table, below: committed.applied)
    }

    /// The table is as of the commit: what was not told is, and the first message may come.
    public mutating func caughtUp(table: inout MembershipTable, output: inout JoinOutput) {
        next.members = max(next.members, committed.memberships)
        applySteps(&table, below: committed.applied, isComplete: true)
        isBusy = changes.canGoOn(table)
        if !isBusy { endParts(at: changes.position(next: next.members)) }
        commitSucceeded(committed, output: &output)
    }

    private var isReplaying: Bool { next.incoming < replayEnd }

    private func seq(_ offset: Int64) -> Int64 { next.runs.incoming.seq(of: offset) }

    /// Whether `chat.members` may be offered: not during a replay, nor while so much of it waits to be told that more would
    /// take too much memory.
    public var takesChanges: Bool { !isReplaying && !isBusy && !untold.isFull }

    // MARK: Membership

    /// A record of `chat.members`. What it has to tell comes when it is committed.
    /// - Returns: how many records that will be.
    @discardableResult
    public mutating func members(
        key: Span<UInt8>?, value: Span<UInt8>?, offset: Int64, table: inout MembershipTable
    ) -> Int {
        precondition(!isReplaying && !isBusy, "membership stands still during a replay, and while changes wait")
        receive(key: key, value: value, offset: offset)
        return applySteps(&table)
    }

    /// Whether the next slice may be applied.
    public var canGoOn: Bool { isBusy && !isReplaying && !untold.isFull }

    /// Applies the next slice of the changes that wait.
    @discardableResult
    public mutating func goOn(table: inout MembershipTable) -> Int {
        guard canGoOn else { return 0 }
        return applySteps(&table)
    }

    /// How many changes have been read and not been applied.
    public var waitingChanges: Int { changes.count }

    private mutating func receive(key: Span<UInt8>?, value: Span<UInt8>?, offset: Int64) {
        guard offset >= next.members else { return }
        next.members = offset + 1
        next.memberships = max(next.memberships, offset + 1)
        do throws(JSONError) {
            try changes.receive(key: key, value: value, offset: offset)
        } catch {
            counts.rejected += 1
            untold.output.begin(membersName, partition: partition, offset: offset)
            untold.output.reject(.malformed, "\(error)", partition: partition, record: value)
        }
    }

    /// - Parameters:
    ///   - end: only what lies below is applied, however much that is.
    ///   - isComplete: nothing that belongs to it will follow.
    @discardableResult
    private mutating func applySteps(
        _ table: inout MembershipTable, below end: Int64? = nil, isComplete: Bool = false
    ) -> Int {
        var output = JoinOutput()
        // Out of the task meanwhile, whose other parts it is made with.
        swap(&output, &untold.output)
        let before = output.records.count
        var count = 0
        isBusy = false
        while true {
            if let end {
                // A whole membership is not one of the changes that wait.
                if !changes.hasMembership, changes.position(next: next.members) >= end { break }
            } else if count == setup.limits.sliceMax || output.bytes.count > UntoldChanges.bytesMax {
                isBusy = changes.canGoOn(table)
                break
            }
            guard let step = changes.next(table, isComplete: isComplete) else { break }
            count += 1
            switch step {
            case .repeated: counts.changesRepeated += 1
            case .unchanged: counts.changesWithoutEffect += 1
            case .apply(let change, let offset): apply(change, offset: offset, table: &table, output: &output)
            }
        }
        let records = output.records.count - before
        swap(&output, &untold.output)
        let applied = changes.position(next: next.members)
        untold.note(from: start, to: applied)
        if changes.isEmpty { start = next.members }
        if !isBusy, end == nil { endParts(at: applied) }
        return records
    }

    /// What waits now waits for records to come. Of a chat that is not among it there is no more than has been applied.
    private mutating func endParts(at applied: Int64) {
        guard isPartly else { return }
        isPartly = false
        for (chat, change) in changed where change.members == Change.partly {
            if changes.waits(for: chat) { isPartly = true } else { changed[chat]?.members = applied }
        }
        changed = changed.filter { !$0.value.isCovered(by: committed) }
    }

    private mutating func apply(
        _ change: MembershipChanges.Change, offset: Int64, table: inout MembershipTable, output: inout JoinOutput
    ) {
        switch change {
        case .member(let member, let statement):
            counts.changes += 1
            apply(change, of: member, statement, offset: offset, table: &table, output: &output)
        case .chat(let chat, let version, _):
            counts.changes += 1
            // A version alone decides whether a message must wait, and so where a replay ends.
            let isNew = table.findLogged(chat).map { table.metaVersion(of: $0) } != version
            applyRow(change, of: chat, isNew: isNew, offset: offset, table: &table, output: &output)
            guard let change = bulk.removeValue(forKey: chat) else { return }
            output.begin(membersName, partition: partition, offset: offset)
            output.write(change, of: chat, metaVersion: version)
            counts.recipients += output.tellAll(of: chat, in: table, largeChat: setup.limits.largeChat)
            counts.bulkChanges += 1
        case .chatDeleted(let chat):
            counts.changes += 1
            applyRow(change, of: chat, isNew: true, offset: offset, table: &table, output: &output)
        case .membership(let membership, let isOver):
            let chat = membership.chat
            if !isOver, membership.metaVersion > table.find(chat).map({ table.metaVersion(of: $0) }) ?? 0 {
                changed[chat, default: Change()].memberships = offset + 1
                change.apply(to: &table)
            } else if !table.hasShadow(chat) {
                // It came too late to be of use.
                output.begin(membersName, partition: partition, offset: offset)
                output.forgetMembership(of: chat, partition: partition)
            }
        }
    }

    /// A row of table `chats`. When it ends the use of a membership read from Postgres, the log need not keep that.
    private mutating func applyRow(
        _ change: MembershipChanges.Change, of chat: ChatID, isNew: Bool, offset: Int64,
        table: inout MembershipTable, output: inout JoinOutput
    ) {
        let hadShadow = table.hasShadow(chat)
        change.apply(to: &table)
        let isCaughtUp = hadShadow && !table.hasShadow(chat)
        if isNew || isCaughtUp { changed[chat, default: Change()].members = offset + 1 }
        guard isCaughtUp else { return }
        output.begin(membersName, partition: partition, offset: offset)
        output.forgetMembership(of: chat, partition: partition)
    }

    private mutating func apply(
        _ change: MembershipChanges.Change, of member: MembershipChanges.Member,
        _ statement: MembershipChanges.Statement?, offset: Int64, table: inout MembershipTable,
        output: inout JoinOutput
    ) {
        let chat = table.findLogged(member.chat)
        let before = chat.flatMap { table.member(member.user, of: $0)?.role }
        guard before != member.role else { return }
        let isPart = statement.map { !$0.isLast } ?? false
        changed[member.chat, default: Change()].members = isPart ? Change.partly : offset + 1
        if isPart { isPartly = true }
        if member.origin == .firstSnapshot { return change.apply(to: &table) }
        let event = MembershipEvent(
            chat: member.chat, user: member.user,
            change: member.role == nil ? .removed : before == nil ? .added : .role,
            metaVersion: statement?.metaVersion ?? chat.map { table.metaVersion(of: $0) } ?? 0)
        let isBulk = statement?.isBulk ?? false
        if isBulk { bulk[member.chat, default: BulkChange()].add(event.change) }
        // When a chat is deleted, each member is told of their own removal.
        let isAlone = isBulk || chat.map { table.isDeleted($0) } ?? false
        output.begin(membersName, partition: partition, offset: offset)
        output.write(event)
        // The one removed is still in the table when it is told, the one added is in it already.
        let isRemoval = event.change == .removed
        if !isRemoval { change.apply(to: &table) }
        counts.recipients += output.tell(event, of: table, largeChat: setup.limits.largeChat, alone: isAlone)
        if isRemoval { change.apply(to: &table) }
        counts.memberEvents += 1
        guard let statement, statement.isLast else { return }
        // All that made the version is in the table: messages of the chat need not wait until its row comes up.
        applyRow(
            .chat(member.chat, metaVersion: statement.metaVersion, isExact: false), of: member.chat, isNew: true,
            offset: offset, table: &table, output: &output)
    }

    /// What is to be committed at this moment.
    public var position: Positions {
        let applied = changes.position(next: next.members)
        return Positions(
            incoming: next.incoming, members: untold.start ?? start, signals: next.signals, applied: applied,
            memberships: next.memberships, decision: decided?.decision, runs: next.runs)
    }

    /// - Parameter output: gets what is to be told of the changes that are committed now.
    public mutating func commitSucceeded(_ positions: Positions, output: inout JoinOutput) {
        committed = positions
        untold.tell(upTo: positions.applied, to: &output)
        if !changed.isEmpty { changed = changed.filter { !$0.value.isCovered(by: positions) } }
        if let decided, positions.incoming == decided.offset, positions.decision == decided.decision {
            self.decided?.isCommitted = true
        }
    }

    /// Whether a message of some chat may have to wait until the change of its membership is committed.
    public var hasUncommittedChanges: Bool { !changed.isEmpty }

    // MARK: Messages

    /// A record of `chat.incoming`.
    public mutating func message(
        _ value: Span<UInt8>?, offset: Int64, timestampMs: Int64, nowNs: UInt64, table: borrowing MembershipTable,
        output: inout JoinOutput
    ) -> JoinStep {
        guard offset >= next.incoming else { return .done }
        guard offset < committed.incoming + Int64(setup.limits.uncommittedMax) else {
            return wait(.commit, offset, nowNs)
        }
        guard let value else {
            refuse(.malformed, "there is no value", record: nil, offset: offset, output: &output)
            return done(offset, nowNs)
        }
        let message: IncomingMessage
        do throws(JSONError) {
            message = try IncomingMessage(decoding: value)
        } catch {
            refuse(.malformed, "\(error)", record: value, offset: offset, output: &output)
            return done(offset, nowNs)
        }
        guard message.chat.partition(count: setup.chatPartitions) == partition else {
            refuse(.wrongPartition, "", record: value, offset: offset, output: &output)
            return done(offset, nowNs)
        }
        if let first = recent.find(message.id, from: message.from) {
            output.begin(incomingName, partition: partition, offset: offset)
            output.answerAgain(message, seq: first.seq, ts: first.ts, setup.deliveryPartitions)
            counts.already += 1
            return done(offset, nowNs)
        }
        switch check(message, offset: offset, nowNs: nowNs, table: table) {
        case .wait(let reason): return wait(reason, offset, nowNs)
        case .refuse(let rejection):
            refuse(rejection, "", record: value, offset: offset, output: &output)
            output.refuse(message, rejection, setup.deliveryPartitions)
        case .accept(let chat):
            let isAccepted = accept(
                message, chat, value, offset: offset, timestampMs: timestampMs, table: table, output: &output)
            guard !isAccepted else { break }
            refuse(.tooLarge, "", record: value, offset: offset, output: &output)
            output.refuse(message, .tooLarge, setup.deliveryPartitions)
        }
        return done(offset, nowNs)
    }

    private enum Verdict { case accept(MembershipTable.Chat), refuse(Rejection), wait(JoinWait) }

    private mutating func check(
        _ message: IncomingMessage, offset: Int64, nowNs: UInt64, table: borrowing MembershipTable
    ) -> Verdict {
        let waiting = self.waiting?.offset == offset ? self.waiting : nil
        let decided = self.decided?.offset == offset ? self.decided : nil
        if let decided {
            guard decided.isCommitted else { return .wait(.commit) }
            if decided.decision == .unavailable { return .refuse(.unavailable) }
        }
        let chat = table.find(message.chat)
        let version = chat.map { table.metaVersion(of: $0) } ?? 0
        if message.metaVersion > version, decided == nil {
            if let existing = waiting?.existing, existing <= version { return decide(.withoutVersion, offset) }
            let reason = JoinWait.membership(message.chat, metaVersion: message.metaVersion)
            return isOver(reason, waiting, nowNs) ? decide(.unavailable, offset) : .wait(reason)
        }
        if !changed.isEmpty, let change = changed[message.chat] {
            // Whoever came this far before had to wait here too.
            if change.members == Change.partly { replayEnd = min(replayEnd, offset) }
            return .wait(.commit)
        }
        guard let chat, let sender = table.member(message.from, of: chat) else { return .refuse(.notMember) }
        guard let target = message.target, message.kind != .text else { return .accept(chat) }
        var original: Original
        switch recent.original(at: target) {
        case .message(let chat, let from): original = .message(chat: chat, from: from)
        case .none: original = .none
        case .older:
            // What stood in an earlier run is in the log no more.
            guard target < seq(offset), LogRun.generation(ofSeq: target) == next.runs.incoming.generation else {
                return .refuse(.unknownMessage)
            }
            if let read = waiting?.original {
                original = read
            } else {
                // In a replay a predecessor may have found it in time, and accepted the message.
                let isOver = !isReplaying && isOver(.original(seq: target), waiting, nowNs)
                return isOver ? decide(.unavailable, offset) : .wait(.original(seq: target))
            }
        }
        guard case .message(message.chat, let author) = original else { return .refuse(.unknownMessage) }
        let isAllowed = author == message.from || message.kind == .delete && sender.role == .admin
        return isAllowed ? .accept(chat) : .refuse(.notAllowed)
    }

    private mutating func decide(_ decision: JoinDecision, _ offset: Int64) -> Verdict {
        // The position says which message it is about; between it and the last one there may be nothing.
        next.incoming = offset
        decided = Decided(offset: offset, decision: decision)
        return .wait(.commit)
    }

    /// False when a record would be larger than the log takes: nothing is written of it then. Which messages these are
    /// follows from the log and the membership alone, so a replay refuses the same.
    private mutating func accept(
        _ message: IncomingMessage, _ chat: MembershipTable.Chat, _ value: Span<UInt8>, offset: Int64,
        timestampMs: Int64, table: borrowing MembershipTable, output: inout JoinOutput
    ) -> Bool {
        let mark = output.mark
        let ts = max(timestampMs, recent.last?.ts ?? 0)
        let seq = seq(offset)
        output.begin(incomingName, partition: partition, offset: offset)
        output.setKey(message.chat)
        output.beginRecord()
        message.writeAccepted(seq: seq, ts: ts, to: &output.json, source: value)
        output.endRecord(.messages, partition: partition)
        output.beginEvent()
        message.writeEvent(seq: seq, ts: ts, to: &output.event, source: value)
        let recipients = output.fanOut(
            to: chat, message.chat, of: table, largeChat: setup.limits.largeChat, except: nil)
        guard output.largest(since: mark) <= setup.limits.recordBytesMax else {
            output.takeBack(to: mark)
            return false
        }
        counts.recipients += recipients
        recent.append(
            message.id, chat: message.chat, from: message.from, seq: seq, ts: ts, kind: message.kind)
        counts.accepted += 1
        return true
    }

    private mutating func refuse(
        _ rejection: Rejection, _ detail: String, record: Span<UInt8>?, offset: Int64, output: inout JoinOutput
    ) {
        output.begin(incomingName, partition: partition, offset: offset)
        output.reject(rejection, detail, partition: partition, record: record)
        counts.rejected += 1
    }

    private mutating func done(_ offset: Int64, _ nowNs: UInt64) -> JoinStep {
        next.incoming = offset + 1
        decided = nil
        if let waiting {
            counts.waited(nowNs &- waiting.sinceNs, for: waiting.reason)
            self.waiting = nil
        }
        return .done
    }

    private mutating func wait(_ reason: JoinWait, _ offset: Int64, _ nowNs: UInt64) -> JoinStep {
        var waiting =
            self.waiting ?? Waiting(offset: offset, reason: reason, sinceNs: nowNs, askAtNs: nil)
        if self.waiting != nil {
            if waiting.reason == reason { return .waiting(reason) }
            counts.waited(nowNs &- waiting.sinceNs, for: waiting.reason)
            (waiting.reason, waiting.sinceNs) = (reason, nowNs)
        }
        switch reason {
        case .commit: waiting.askAtNs = nil
        case .original: waiting.askAtNs = nowNs
        case .membership:
            waiting.askAtNs = nowNs + UInt64(setup.limits.membersReadAfterMs) * 1_000_000
            // Whoever came this far before had to wait here too: what it may have written is behind us.
            replayEnd = min(replayEnd, offset)
        }
        self.waiting = waiting
        return .waiting(reason)
    }

    /// Whether a message has waited for this as long as it may.
    private func isOver(_ reason: JoinWait, _ waiting: Waiting?, _ nowNs: UInt64) -> Bool {
        guard let waiting, waiting.reason == reason else { return false }
        return nowNs &- waiting.sinceNs >= UInt64(setup.limits.holdMaxMs) * 1_000_000
    }

    /// Forgets what was accepted, so that a benchmark can send the same again.
    mutating func forget() {
        recent = RecentMessages(capacity: setup.limits.recentMessages)
    }

    // MARK: Signals

    /// A record of `chat.signals`.
    public mutating func signal(
        _ value: Span<UInt8>?, offset: Int64, table: borrowing MembershipTable, output: inout JoinOutput
    ) {
        guard offset >= next.signals else { return }
        next.signals = offset + 1
        var signal: Signal
        do throws(JSONError) {
            guard let value else { throw JSONError(.endOfInput, at: 0) }
            signal = try Signal(decoding: value)
        } catch {
            counts.rejected += 1
            output.begin(signalsName, partition: partition, offset: offset)
            output.reject(.malformed, "\(error)", partition: partition, record: value)
            return
        }
        guard let chat = table.find(signal.chat), table.member(signal.from, of: chat) != nil else {
            // No record of it: whoever left a chat a moment ago still types in it.
            counts.signalsDropped += 1
            return
        }
        guard table.memberCount(of: chat) <= setup.limits.largeChat else {
            counts.signalsDropped += 1
            return
        }
        if let seq = signal.seq {
            // Nobody can have got more than was accepted. A mark beyond that would hide whatever comes, so it is told as the
            // newest there is; after a replay it may be told short, which the reader's next one makes good.
            guard let newest = recent.last?.seq else {
                counts.signalsDropped += 1
                return
            }
            signal.seq = min(seq, newest)
        }
        output.begin(signalsName, partition: partition, offset: offset)
        output.write(signal)
        // Reading on one device is news for the reader's other devices.
        counts.recipients += output.fanOut(
            to: chat, signal.chat, of: table, largeChat: setup.limits.largeChat,
            except: signal.kind == .read ? nil : signal.from)
        counts.signals += 1
    }
}
