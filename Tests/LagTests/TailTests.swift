import Lag
import Testing
import Wire

private let (ada, bob) = (UserID(UUID(high: 1, low: 1)), UserID(UUID(high: 1, low: 2)))
private let (here, there) = (ChatID(UUID(high: 2, low: 1)), ChatID(UUID(high: 2, low: 2)))

private func lines(_ query: TailQuery, _ value: String?, key: String = "") -> [String] {
    let (key, value) = (Array(key.utf8), value.map { Array($0.utf8) })
    let filter = TailFilter(query)
    if let value {
        return filter.lines(partition: 3, offset: 7, timestampMs: 0, key: key.span, value: value.span)
    }
    return filter.lines(partition: 3, offset: 7, timestampMs: 0, key: key.span, value: nil)
}

@Suite struct TailTests {
    @Test func `a line says where and when the record is`() {
        #expect(lines(TailQuery(topic: .messages), "{}") == ["3/7 1970-01-01T00:00:00.000Z {}"])
    }

    @Test func `only what names the chat is shown`() {
        var query = TailQuery(topic: .messages)
        query.chat = here
        query.isJSON = true
        let value = #"{"chat":"\#(here)"}"#
        #expect(lines(query, value) == [value])
        #expect(lines(query, #"{"chat":"\#(there)"}"#).isEmpty)
    }

    @Test func `deliveries are unpacked for each recipient`() {
        var query = TailQuery(topic: .deliveries)
        query.isJSON = true
        let value = #"{"to":["\#(ada)","\#(bob)"],"event":{"chat":"\#(here)"}}"#
        #expect(lines(query, value) == [value])
        query.isPerRecipient = true
        #expect(lines(query, value) == [ada, bob].map { #"{"user":"\#($0)","event":{"chat":"\#(here)"}}"# })
        query.user = bob
        #expect(lines(query, value).count == 1)
        query.chat = there
        #expect(lines(query, value).isEmpty)
    }

    @Test func `a tombstone and a record that is no JSON are shown too`() {
        #expect(lines(TailQuery(topic: .members), nil, key: "k") == ["3/7 1970-01-01T00:00:00.000Z k (deleted)"])
        #expect(lines(TailQuery(topic: .deliveries), "garbage").count == 1)
    }

    @Test func `places are told apart by their form`() {
        #expect(TailQuery.From("beginning") == .beginning)
        #expect(TailQuery.From("12") == .offset(12))
        #expect(TailQuery.From("1700000000000") == .time(1_700_000_000_000))
        #expect(TailQuery.From("yesterday") == nil)
    }
}
