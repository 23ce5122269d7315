import Runtime
import Synchronization
import Testing

private final class Lines: Sendable {
    let all = Mutex<[String]>([])
    func log(_ format: Log.Format, level: Log.Level = .info) -> Log {
        Log(component: "join", level: level, format: format, clock: ManualClock(wallMs: 1_700_000_000_123)) { line in
            self.all.withLock { $0.append(String(decoding: line, as: UTF8.self)) }
        }
    }
    var text: [String] { all.withLock { $0 } }
}

@Suite struct LogTests {
    @Test func `people get aligned columns`() {
        let lines = Lines()
        lines.log(.text).with(["partition": 3]).info("assigned", ["topic": "chat.incoming", "why": "a b", "lag": 1.5])
        #expect(
            lines.text == [
                "22:13:20.123 info    join      assigned partition=3 topic=chat.incoming why=\"a b\" lag=1.5\n"
            ])
    }

    @Test func `machines get one JSON object a line`() {
        let lines = Lines()
        lines.log(.json).error("broke \"it\"\n", ["n": 1, "ok": false])
        #expect(
            lines.text == [
                #"{"ts":1700000000123,"level":"error","component":"join","message":"broke \"it\"\n","n":1,"ok":false}"#
                    + "\n"
            ])
    }

    @Test func `control characters cannot forge a line or drive a terminal`() {
        let lines = Lines()
        lines.log(.text).warning("bad\nname", ["user": "x\u{1b}[2J"])
        #expect(lines.text.first?.filter { $0 == "\n" }.count == 1)
        #expect(lines.text.first?.contains("\u{1b}") == false)
    }

    @Test func `what is below the level is not even built`() {
        let lines = Lines()
        var built = false
        lines.log(.text).debug(
            "hidden",
            {
                built = true; return [:]
            }())
        #expect(lines.text.isEmpty && !built)
    }

    @Test(
        arguments: [
            (0, "1970-01-01T00:00:00.000Z"), (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"), (4_107_542_399_000, "2100-02-28T23:59:59.000Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"), (-1, "1969-12-31T23:59:59.999Z"),
        ] as [(Int64, String)])
    func `civil time is right over leap years and before the epoch`(wallMs: Int64, text: String) {
        #expect(CalendarTime(wallMs: wallMs).iso8601 == text)
    }
}
