import KafkaClient
import Lag
import Testing
import Wire

private func position(
    _ committed: Int64?, end: Int64, low: Int64 = 0, firstMs: Int64? = nil, partition: Int32 = 0
) -> LagSample.Position {
    LagSample.Position(
        group: "g", partition: TopicPartition("t", partition), committed: committed, low: low, end: end,
        firstWaitingMs: firstMs)
}

private func sample(at ms: Int64, members: Int? = 1, _ positions: LagSample.Position...) -> LagSample {
    var sample = LagSample(takenMs: ms)
    sample.positions = positions
    sample.groups = [LagSample.Group(id: "g", members: members)]
    return sample
}

/// What two looks say, for one partition.
private func row(_ before: LagSample?, _ now: LagSample) -> LagRow { LagStatus(before: before, now: now).rows[0] }

@Suite struct LagStatusTests {
    @Test func `nothing waiting is OK and zero seconds, however old the last record is`() {
        let row = row(sample(at: 0, position(5, end: 5)), sample(at: 1000, position(5, end: 5)))
        #expect(row.state == .ok && row.seconds == 0 && row.messages == 0 && row.catchUpSeconds == 0)
    }

    @Test func `seconds are the age of the first waiting record`() {
        let row = row(nil, sample(at: 60_000, position(5, end: 9, firstMs: 57_500)))
        #expect(row.seconds == 2.5 && row.messages == 4)
    }

    @Test func `a clock that runs ahead never makes time negative`() {
        #expect(row(nil, sample(at: 1000, position(5, end: 9, firstMs: 5000))).seconds == 0)
    }

    @Test func `a consumer that is late but gaining is OK, one that loses is BEHIND`() {
        let before = sample(at: 0, position(100, end: 1000, firstMs: -60_000))
        #expect(row(before, sample(at: 1000, position(400, end: 1100, firstMs: -50_000))).state == .ok)
        #expect(row(before, sample(at: 1000, position(150, end: 1100, firstMs: -59_000))).state == .behind)
    }

    @Test func `work without any commit moving is STALLED, but not within the time between two commits`() {
        let before = sample(at: 10_000, position(5, end: 9, firstMs: 9_000))
        #expect(row(before, sample(at: 11_000, position(5, end: 9, firstMs: 9_000))).state == .ok)
        #expect(row(before, sample(at: 20_000, position(5, end: 9, firstMs: 9_000))).state == .stalled)
    }

    @Test func `a group without members is EMPTY, one whose members are unknown is judged by its commits`() {
        #expect(row(nil, sample(at: 0, members: 0, position(5, end: 9))).state == .empty)
        #expect(row(nil, sample(at: 0, members: nil, position(9, end: 9))).state == .ok)
    }

    @Test func `commits outside of the log are clamped and flagged`() {
        let beyond = row(nil, sample(at: 0, position(50, end: 9)))
        #expect(beyond.messages == 0 && beyond.isClamped)
        let deleted = row(nil, sample(at: 0, position(2, end: 9, low: 6)))
        #expect(deleted.messages == 3 && deleted.isClamped)
        let never = row(nil, sample(at: 0, position(nil, end: 9, low: 6)))
        #expect(never.messages == 3 && !never.isClamped)
    }

    @Test func `rates and the time to catch up follow from two looks`() {
        let row = row(
            sample(at: 0, position(0, end: 1000, firstMs: 0)), sample(at: 2000, position(600, end: 1200, firstMs: 0)))
        #expect(row.rateIn == 100 && row.rateOut == 300 && row.catchUpSeconds == 3)
    }

    @Test func `a rewind is no consumption`() {
        let row = row(
            sample(at: 0, position(900, end: 1000, firstMs: 0)), sample(at: 1000, position(100, end: 1000, firstMs: 0)))
        #expect(row.rateOut == 0 && row.catchUpSeconds == nil)
    }

    @Test func `a total is as bad as its worst partition`() {
        let status = LagStatus(
            before: nil,
            now: sample(
                at: 60_000, position(5, end: 5), position(1, end: 9, firstMs: 10_000, partition: 1)))
        #expect(status.totals.count == 1)
        #expect(status.totals[0].seconds == 50 && status.totals[0].messages == 8 && status.totals[0].state == .behind)
    }

    @Test func `a slot that is lost, runs out of room or keeps too much is DANGER`() {
        func state(_ change: (inout LagSample.Slot) -> Void) -> LagState {
            var slot = LagSample.Slot(
                name: "s", isActive: true, confirmed: "0/0", retainedBytes: 1000, safeBytes: 1 << 30,
                walStatus: "reserved", behindSeconds: 0)
            change(&slot)
            var sample = LagSample(takenMs: 0)
            sample.slots = [slot]
            return LagStatus(before: nil, now: sample).slots[0].state
        }
        #expect(state { _ in } == .ok)
        #expect(state { $0.walStatus = "lost" } == .danger)
        #expect(state { $0.safeBytes = 10 } == .danger)
        #expect(state { $0.retainedBytes = 2 << 30 } == .danger)
        #expect(state { $0.isActive = false } == .empty)
        #expect(state { $0.behindSeconds = 20 } == .behind)
    }

    @Test func `a topic that is put aside is DANGER, and the line names the table`() throws {
        var slot = LagSample.Slot(
            name: "s", isActive: true, confirmed: "0/9", retainedBytes: 1000, safeBytes: nil, walStatus: "reserved",
            behindSeconds: 0)
        let note = #"{"slot":"s","lsn":"0/9","aside":[{"topic":"chat.members","table":"public.members","lsn":"0/7"}]}"#
        slot.note = try SlotNote(decoding: note.utf8.span)
        slot.confirmedAgeSeconds = 1
        var sample = LagSample(takenMs: 0)
        sample.slots = [slot]
        let status = LagStatus(before: nil, now: sample)
        #expect(status.slots[0].state == .danger)
        let (verdict, line) = LagCheck().verdict(on: status)
        #expect(verdict == .critical)
        #expect(line == "CRITICAL: slot s: chat.members stands still since 0/7, on account of public.members")
    }

    @Test func `a slot is judged by the age of what CDC has confirmed, and the line says who does not read`() {
        func look(_ age: Double?, isActive: Bool = true, secondsMax: Double? = nil) -> (
            LagState, LagCheck.Verdict, String
        ) {
            var slot = LagSample.Slot(
                name: "s", isActive: isActive, confirmed: "0/0", retainedBytes: 1000, safeBytes: nil,
                walStatus: "reserved", behindSeconds: isActive ? 0 : nil)
            slot.confirmedAgeSeconds = age
            var sample = LagSample(takenMs: 0)
            sample.slots = [slot]
            let status = LagStatus(before: nil, now: sample)
            var check = LagCheck()
            check.secondsMax = secondsMax
            let (verdict, line) = check.verdict(on: status)
            return (status.slots[0].state, verdict, line)
        }
        #expect(look(5.2) == (.ok, .ok, "OK: 0 rows"), "a heartbeat comes each five seconds")
        let frozen =
            "slot s: its reader has confirmed nothing newer than 17s: frozen, cut off, or in a large transaction"
        #expect(look(17) == (.behind, .warning, "WARNING: \(frozen)"))
        #expect(look(40).0 == .stalled && look(40).1 == .critical)
        #expect(look(9, isActive: false) == (.empty, .warning, "WARNING: slot s: nobody reads it since 9.0s"))
        #expect(look(180, isActive: false) == (.stalled, .critical, "CRITICAL: slot s: nobody reads it since 3m"))
        #expect(look(nil, isActive: false) == (.empty, .warning, "WARNING: slot s: nobody reads it"))
        // The limit counts from where a reader that follows would be.
        #expect(look(5.2, secondsMax: 1).1 == .ok)
        #expect(
            look(12, secondsMax: 10) == (
                .ok, .warning,
                "WARNING: slot s: its reader has confirmed nothing newer than 12s: frozen, cut off, or in a large transaction"
            ))
        #expect(look(16, secondsMax: 10).1 == .critical)
    }

    @Test func `push is judged by its own schedule: what waits on purpose is not late, what is due is`() {
        func look(_ note: PushNote?, ageMs: Int64, _ groups: [String: Double] = ["g": 30]) -> LagRow {
            func sample(_ ms: Int64) -> LagSample {
                var sample = LagSample(takenMs: ms)
                var position = position(5, end: 9, firstMs: 100_000 - ageMs)
                position.pushNote = note
                sample.positions = [position]
                return sample
            }
            var thresholds = LagThresholds()
            thresholds.groups = groups
            return LagStatus(before: sample(99_000), now: sample(100_000), thresholds: thresholds).rows[0]
        }
        let waiting = look(PushNote(atMs: 96_000, dueMs: nil), ageMs: 35_000)
        #expect(waiting.state == .ok && waiting.seconds == 0 && waiting.messages == 4)
        let due = look(PushNote(atMs: 96_000, dueMs: 90_000), ageMs: 35_000)
        #expect(due.state == .ok && due.seconds == 10)
        #expect(look(PushNote(atMs: 96_000, dueMs: 80_000), ageMs: 35_000).state == .stalled)
        // Nobody has said for long, or ever: then the records' age counts.
        #expect(look(PushNote(atMs: 80_000, dueMs: nil), ageMs: 35_000).seconds == 35)
        #expect(look(nil, ageMs: 35_000).state == .stalled && look(nil, ageMs: 10_000).state == .ok)
        #expect(look(nil, ageMs: 10_000, ["g": 12]).state == .stalled)
    }

    @Test func `each group has a limit of its own, in the table and in the check`() {
        var query = LagQuery(kafka: KafkaConfiguration(bootstrapServers: "x:1"))
        query.groupMax = ["push": 60, "reports": 3600, "cdc": 120]
        let thresholds = query.thresholds
        #expect(thresholds.groups["fanout.push"] == 60 && thresholds.groups["fanout.join"] == 10)
        #expect(thresholds.groups["reports"] == 3600 && thresholds.slotSeconds == 120)
        let status = LagStatus(before: nil, now: sample(at: 60_000, position(1, end: 9, firstMs: 15_000)))
        var check = LagCheck()
        check.secondsMax = 1000
        #expect(check.verdict(on: status).0 == .warning, "BEHIND")
        check.groupSecondsMax = ["g": 40]
        #expect(check.verdict(on: status) == (.critical, "CRITICAL: g on t is 45s behind; g on t falls behind"))
    }
}

@Suite struct LagOutputTests {
    private let status = LagStatus(
        before: sample(at: 0, position(100, end: 1_000_000, firstMs: -100)),
        now: sample(at: 1000, position(5100, end: 12_345_678, firstMs: -100), position(9, end: 5, partition: 1)))

    /// Everything a table can show, and more of it than fits.
    private var crowded: LagStatus {
        var now = sample(at: 100_000, position(5, end: 900, firstMs: 100))
        now.slots = [
            LagSample.Slot(
                name: "fanout_of_a_very_long_deployment_name", isActive: false, confirmed: "12/FFAA0010",
                retainedBytes: 5 << 30, safeBytes: 7 << 30, walStatus: "extended", behindSeconds: 75)
        ]
        now.instances = (0..<6).map {
            LagSample.Instance(name: "chat-\($0)", connections: 19_000, isDraining: $0 == 2, heartbeatAgeMs: 9000)
        }
        now.missing = ["the time of the first waiting record, at 1234 places of a cluster that answers slowly today"]
        return LagStatus(before: nil, now: now)
    }

    @Test func `no line of the table is wider than it is told, and at 80 columns nothing is lost`() {
        var table = LagTable()
        for columns in [80, 120, 60, 40] {
            for (partitions, status) in [(false, status), (true, status), (false, crowded), (true, crowded)] {
                table.showsPartitions = partitions
                table.columns = columns
                for line in table.lines(status) { #expect(line.count <= columns, "\(line)") }
            }
        }
        table.columns = 80
        #expect(table.lines(status).contains("! a commit lies outside of the log"))
        let words = table.lines(crowded).joined(separator: " ").split(separator: " ").joined(separator: " ")
        for wanted in [
            "slot fanout_of_a_very_long_deployment_name: DANGER, nobody reads it, at 12/FFAA0010, keeps 5120 MiB of WAL (extended,",
            "7168 MiB left)", "chat-5 19000 devices, silent for 9.0s", "chat-2 19000 devices, draining",
            "missing: the time of the first waiting record, at 1234 places of a cluster that answers slowly today",
        ] { #expect(words.contains(wanted), "\(wanted)\n\(words)") }
    }

    @Test func `a coloured line is cut like a plain one, and its colour ends with it`() {
        var table = LagTable()
        table.columns = 40
        let plain = table.lines(crowded)
        table.usesColour = true
        let coloured = table.lines(crowded)
        #expect(coloured.contains { $0.hasPrefix("\u{1b}[3") && $0.hasSuffix("\u{1b}[0m") })
        #expect(coloured.map(Self.visible) == plain)
    }

    /// What a terminal shows of a line.
    private static func visible(_ line: String) -> String { line.replacing(/\u{1b}\[[0-9;]*m/, with: "") }

    @Test func `a partition's row tells who has it and when it was committed, a wide table everything`() {
        let place = TopicPartition("t", 3)
        var now = sample(at: 100_000)
        now.positions = [
            LagSample.Position(group: "g", partition: place, committed: 9, low: 0, end: 9, committedMs: 93_000),
            LagSample.Position(group: "g", partition: TopicPartition("t", 4), committed: nil, low: 0, end: 0),
        ]
        now.groups = [
            LagSample.Group(
                id: "g", members: 2, owners: [place: LagSample.Owner(member: "m-1", name: "join-1", host: "10.0.0.7")])
        ]
        let status = LagStatus(before: nil, now: now)
        var table = LagTable()
        table.showsPartitions = true
        #expect(table.lines(status)[1].contains("7.0s OK      join-1@10.0.0"))
        #expect(table.lines(status)[2].contains("never"))
        table.columns = 120
        #expect(table.lines(status)[0].contains("IN/s") && table.lines(status)[0].contains("OWNER"))
        table.showsPartitions = false
        #expect(table.lines(status)[0].contains("COMMIT") && table.lines(status)[0].contains("MEMBERS"))
        #expect(table.lines(status)[1].contains("      2 OK"))
    }

    @Test func `the watch view fills its terminal exactly, however small`() {
        for usesColour in [false, true] {
            for status in [status, crowded] {
                var view = LagWatch()
                var table = LagTable()
                table.usesColour = usesColour
                for _ in 0..<5 { view.add(status) }
                for (columns, rows) in [(80, 24), (40, 5), (10, 2), (1, 1), (200, 60)] {
                    let screen = view.screen(status, table: table, columns: columns, rows: rows)
                    #expect(screen.count == rows)
                    for line in screen { #expect(Self.visible(line).count <= columns, "\(line)") }
                }
            }
        }
    }

    @Test func `the JSON is one well-formed object`() throws {
        var json = JSONWriter()
        status.write(to: &json)
        var reader = JSONReader(json.bytes.span)
        try reader.skipValue()
        try reader.finish()
    }

    @Test func `the JSON does not call a cluster OK that gives no answer`() {
        var silent = LagSample(takenMs: 1)
        silent.clusterError = "nobody there"
        var json = JSONWriter()
        LagStatus(before: nil, now: silent).write(to: &json)
        let text = String(decoding: json.bytes, as: UTF8.self)
        #expect(text.contains(#""state":"UNKNOWN""#) && !text.contains(#""OK""#), "\(text)")
    }

    @Test func `a check is critical above the limit, warns above half of it, and does not hide what it could not see`()
    {
        func verdict(_ seconds: Double, missing: [String] = []) -> LagCheck.Verdict {
            var now = sample(at: 100_000, position(5, end: 9, firstMs: 100_000 - Int64(seconds * 1000)))
            now.missing = missing
            var check = LagCheck()
            check.secondsMax = 8
            return check.verdict(on: LagStatus(before: nil, now: now)).0
        }
        #expect(verdict(1) == .ok)
        #expect(verdict(5) == .warning)
        #expect(verdict(9) == .critical)
        #expect(verdict(1, missing: ["a"]) == .unknown)
        #expect(verdict(9, missing: ["a"]) == .critical)
    }

    @Test func `a cluster that does not answer is unknown, unless a slot is in danger`() {
        var now = LagSample(takenMs: 0)
        now.clusterError = "refused"
        let unknown = LagCheck().verdict(on: LagStatus(before: nil, now: now))
        #expect(unknown.0 == .unknown && unknown.line == "UNKNOWN: no answer from the cluster: refused")
        now.slots = [
            LagSample.Slot(
                name: "s", isActive: true, confirmed: "0/0", retainedBytes: 0, safeBytes: nil, walStatus: "lost",
                behindSeconds: nil)
        ]
        let critical = LagCheck().verdict(on: LagStatus(before: nil, now: now))
        #expect(critical.0 == .critical && critical.line.contains("refused"))
    }

    @Test func `what only markers of transactions lie behind is nothing waiting`() {
        var place = position(5, end: 7)
        place.hasOnlyMarkers = true
        let row = row(nil, sample(at: 60_000, place))
        #expect(row.messages == 0 && row.seconds == 0 && row.state == .ok)
    }

    @Test func `Prometheus gets each family's samples together, names escaped, and never as +Inf`() {
        var now = sample(at: 2000, position(1, end: 9, firstMs: 1000), position(2, end: 2, partition: 1))
        now.slots = [
            LagSample.Slot(
                name: "a\"b", isActive: true, confirmed: "0/0", retainedBytes: 7, safeBytes: nil, walStatus: "reserved",
                behindSeconds: 0.5)
        ]
        let before = sample(at: 1000, position(1, end: 5), position(2, end: 2, partition: 1))
        let text = String(decoding: LagStatus(before: before, now: now).metrics(), as: UTF8.self)
        let lines = text.split(separator: "\n")
        let families = lines.filter { !$0.hasPrefix("#") }.map { $0.prefix { $0 != "{" && $0 != " " } }
        var seen: [Substring] = []
        for family in families where seen.last != family {
            #expect(!seen.contains(family), "\(family) is torn apart")
            seen.append(family)
        }
        #expect(lines.contains(#"fanout_lag_seconds{group="g",topic="t",partition="0"} 1"#))
        #expect(lines.contains(#"fanout_lag_written_per_second{group="g",topic="t"} 4"#))
        #expect(lines.contains(#"fanout_lag_catch_up_seconds{group="g",topic="t"} +Inf"#))
        #expect(lines.contains(#"fanout_slot_wal_status{slot="a\"b",wal_status="reserved"} 1"#))
        #expect(lines.contains(#"fanout_slot_behind_seconds{slot="a\"b"} 0.5"#))
        #expect(lines.contains("fanout_lag_up 1"))
    }
}
