import Testing
import Wire

@Suite struct InstanceRecordTests {
    @Test func `an instance's announcement survives its JSON`() throws {
        let record = InstanceRecord(
            instance: "chat-1", epoch: 7, pushAddress: "10.0.0.1:7070", publicURL: "wss://chat.example/\"x\"",
            connections: 4200, isDraining: true, workers: ["delivery-1", "b"],
            ts: 1_760_000_000_000)
        var json = JSONWriter()
        record.write(to: &json)
        #expect(try InstanceRecord(decoding: json.bytes.span) == record)
    }

    @Test(arguments: [
        #"{"epoch":1,"ts":2}"#, #"{"instance":"a","epoch":-1,"ts":2}"#, #"{"instance":"a","epoch":1}"#, "[]",
    ])
    func `what does not name an instance, its life and its time is refused`(text: String) {
        #expect(throws: JSONError.self) { try InstanceRecord(decoding: Array(text.utf8).span) }
    }
}
