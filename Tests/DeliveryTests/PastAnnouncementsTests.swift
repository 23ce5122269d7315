import Delivery
import Testing
import Wire

struct PastAnnouncementsTests {
    private func record(_ name: String) -> InstanceRecord {
        InstanceRecord(
            instance: name, epoch: 1, pushAddress: "", publicURL: "", connections: 0, isDraining: false, ts: 0)
    }

    @Test func `who spoke long before the others is gone, whatever our clock says`() {
        var past = PastAnnouncements()
        past.take(record("dead"), timestampMs: 1_000_000)
        past.take(record("live"), timestampMs: 1_000_000)
        past.take(record("fast clock"), timestampMs: 5_015_000)
        past.take(record("live"), timestampMs: 5_000_000)
        past.take(record("ended"), timestampMs: 5_000_000)
        past.withdrawn("ended")
        #expect(past.candidates.map(\.instance) == ["fast clock", "live"])
    }

    @Test func `the last ones of a log in which nobody has spoken for long may still be there`() {
        var past = PastAnnouncements()
        past.take(record("a"), timestampMs: 7)
        #expect(past.candidates.map(\.instance) == ["a"])
        #expect(PastAnnouncements().candidates.isEmpty)
    }
}
